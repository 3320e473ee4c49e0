"""Where rows go that can't be stored."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from deployments.backfill.rows import shown


class Quarantine:
    """A file of JSON lines: `source`, `row` (null for a whole file), `reason`, `raw`.

    Each line is written at once, so that a kill loses none.
    """

    def __init__(self, file: IO[str] | None, known: set[tuple[str, int | None]]) -> None:
        self._file = file
        self._known = known

    def add(
        self, source: str, row: int | None, reason: str, raw: str | dict[str, object] = ""
    ) -> None:
        """Write a row down, unless an earlier run has. Raises OSError."""
        if self._file is None or (source, row) in self._known:
            return
        line = {"source": source, "row": row, "reason": reason, "raw": shown(raw)}
        self._file.write(json.dumps(line, ensure_ascii=True) + "\n")
        self._file.flush()


@contextmanager
def quarantine(path: Path | None, *, go_on: bool) -> Iterator[Quarantine]:
    """Open a quarantine file: a new one, or the one that an earlier run wrote to, to `go_on`.

    Without a path, rows are only counted. Raises OSError.
    """
    if path is None:
        yield Quarantine(None, set())
        return
    known = _known(path) if go_on and path.exists() else set()
    with path.open("a" if go_on else "w", encoding="utf-8") as file:
        if known:
            # Begins a line if a kill has left half of one.
            file.write("\n")
        yield Quarantine(file, known)


def _known(path: Path) -> set[tuple[str, int | None]]:
    known = set()
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
                known.add((entry["source"], entry["row"]))
            except (ValueError, KeyError, TypeError):
                continue
    return known
