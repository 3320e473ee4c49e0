"""Where rows go that can't be stored."""

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self

from deployments.backfill.rows import shown
from deployments.core.durable_files import Disk, Sink

_Key = tuple[str, int | None]
"""Source and row."""


class Quarantine:
    """A file of JSON lines: `source`, `row` (null for a whole file), `reason`, `raw`.

    Each line is written at once, so that a kill loses none. It is a new file, or the one that an
    earlier run wrote to, to `go_on`. Without a path, rows are only counted.
    """

    def __init__(self, path: Path | None, *, go_on: bool = False) -> None:
        """Open it. Raises OSError."""
        self._path = path
        self._is_durable = True
        self._known: set[_Key] = set()
        if path is not None and go_on and path.is_file():
            self._known = {key for line in _lines(path) if (key := _key(line)) is not None}
        self._file = self._opened(go_on)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

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

    def forget(self, is_stale: Callable[[str, int | None], bool]) -> None:
        """Drop what an earlier run wrote of these sources and rows. Raises OSError."""
        stale = {key for key in self._known if is_stale(*key)}
        if self._path is None or self._file is None or not stale:
            return
        self._file.close()
        path = self._path.resolve()

        def write_others(sink: Sink) -> None:
            for line in _lines(path):
                if _key(line) not in stale:
                    sink(line.encode())

        Disk().write_atomically(path, write_others)
        self._known -= stale
        self._file = self._opened(go_on=True)

    def sync(self) -> None:
        """Return when all that was written survives a loss of power. Raises OSError."""
        if self._file is None or self._is_durable:
            return
        self._file.flush()
        if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            os.fsync(self._file.fileno())
        self._is_durable = True

    def _opened(self, go_on: bool) -> IO[str] | None:
        if self._path is None:
            return None
        file = self._path.open("a" if go_on else "w", encoding="utf-8")
        if go_on and self._path.is_file() and not _ends_a_line(self._path):
            # A kill, or a full disk, has left half of one.
            file.write("\n")
        return file


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read() in (b"", b"\n")


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        yield from lines


def _key(line: str) -> _Key | None:
    try:
        entry = json.loads(line)
        return entry["source"], entry["row"]
    except (ValueError, KeyError, TypeError):
        return None
