"""Where rows go that can't be stored."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from deployments.backfill.rows import shown

_Key = tuple[str, int | None]
"""Source and row."""


class Quarantine:
    """A file of JSON lines: `source`, `row` (null for a whole file), `reason`, `raw`.

    Each line is written at once, so that a kill loses none.
    """

    def __init__(self, file: IO[str] | None, known: set[_Key]) -> None:
        self._file = file
        self._known = known
        self._is_durable = True

    def add(
        self, source: str, row: int | None, reason: str, raw: str | dict[str, object] = ""
    ) -> None:
        """Write a row down, unless an earlier run has. Raises OSError."""
        if self._file is None or (source, row) in self._known:
            return
        line = {"source": source, "row": row, "reason": reason, "raw": shown(raw)}
        self._is_durable = False
        self._file.write(json.dumps(line, ensure_ascii=True) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Return when all that was written survives a loss of power. Raises OSError."""
        if self._file is None or self._is_durable:
            return
        self._file.flush()
        if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            os.fsync(self._file.fileno())
        self._is_durable = True


@contextmanager
def quarantine(path: Path | None, *, go_on: bool) -> Iterator[Quarantine]:
    """Open a quarantine file: a new one, or the one that an earlier run wrote to, to `go_on`.

    Without a path, rows are only counted. Raises OSError.
    """
    if path is None:
        yield Quarantine(None, set())
        return
    known = _known(path) if go_on and path.is_file() else set()
    with path.open("a" if go_on else "w", encoding="utf-8") as file:
        if go_on and path.is_file() and not _ends_a_line(path):
            # A kill, or a full disk, has left half of one.
            file.write("\n")
        yield Quarantine(file, known)


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read() in (b"", b"\n")


def _known(path: Path) -> set[_Key]:
    known = set()
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
                known.add((entry["source"], entry["row"]))
            except (ValueError, KeyError, TypeError):
                continue
    return known
