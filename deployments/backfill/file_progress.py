"""How far files are: which rows count as done."""

from dataclasses import dataclass, field

from deployments.backfill.sources import SourceFile


@dataclass(frozen=True, slots=True)
class Done:
    """The first `rows` of a file are done: stored, or `quarantined` of them. With `finished`,
    these are all."""

    rows: int = 0
    quarantined: int = 0
    finished: bool = False


@dataclass(slots=True)
class FileProgress:
    """A file's rows: read in order, done in any order. A row is done when the service has answered
    for it, or when it is quarantined."""

    file: SourceFile
    before: Done = field(default_factory=Done)
    """What an earlier run did."""
    ended: bool = False
    """Whether no more rows will be read, because all are."""
    _read: int = 0
    _waiting: dict[int, None] = field(default_factory=dict)
    _bad: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._read = self.before.rows

    def begin(self) -> int:
        """Count a row as read; returns its index, from 0."""
        index = self._read
        self._waiting[index] = None
        self._read += 1
        return index

    def finish(self, index: int, *, quarantined: bool = False) -> None:
        """Count a row as done."""
        del self._waiting[index]
        if quarantined:
            self._bad.append(index)

    def done(self) -> Done:
        """What a later run need not do again."""
        # Rows come in order, so the first one is the earliest.
        rows = next(iter(self._waiting), self._read)
        quarantined = self.before.quarantined + sum(index < rows for index in self._bad)
        return Done(rows, quarantined, self.ended and not self._waiting)
