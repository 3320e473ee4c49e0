"""What a disk may hold after the power fails: what was synced, and any part of the rest."""

import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

SECTOR_BYTES = 512

Change = tuple[int, bytes | None]
"""An offset and what was written there; None if the file was cut off there."""


def _apply(content: bytearray, change: Change) -> None:
    offset, data = change
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
    else:
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data


def _sectors(change: Change) -> list[Change]:
    offset, data = change
    if data is None:
        return [change]
    first = -offset % SECTOR_BYTES
    cuts = [0, *range(first or SECTOR_BYTES, len(data), SECTOR_BYTES), len(data)]
    return [
        (offset + start, data[start:end]) for start, end in zip(cuts, cuts[1:], strict=False)
    ]


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)
    named: bool = False
    """Whether its name in the folder is durable."""
    earlier: "_File | None" = None
    """The file that had the name before, whose removal isn't durable."""
    removed: bool = False


class Platter:
    """Records a folder's SQLite files, and makes images of what a power failure leaves.

    A sync that fails is taken as Linux does: what waited to be written is dropped, in whatever
    part didn't reach the disk, and later syncs don't bring it back.
    """

    def __init__(self, seed: object) -> None:
        self._random = random.Random(str(seed))
        self._files: dict[Path, _File] = {}

    def opened(self, path: Path) -> None:
        known = self._files.get(path)
        if known is None or known.removed:
            content = path.read_bytes()
            # What was there before the recording counts as durable.
            file = _File(bytearray(content), named=bool(content), earlier=known)
            self._files[path] = file

    def wrote(self, path: Path, offset: int, data: bytes) -> None:
        self._files[path].pending.append((offset, data))

    def truncated(self, path: Path, size: int) -> None:
        self._files[path].pending.append((size, None))

    def synced(self, path: Path) -> None:
        file = self._files[path]
        for change in file.pending:
            _apply(file.durable, change)
        file.pending = []
        # With a new file's content its name becomes durable; its log's sync comes first.
        file.named, file.earlier = True, None

    def sync_failed(self, path: Path) -> None:
        file = self._files[path]
        for change in self._survivors(file.pending):
            _apply(file.durable, change)
        file.pending = []

    def deleted(self, path: Path) -> None:
        if path in self._files:
            self._files[path].removed = True

    def folder_synced(self, folder: Path) -> None:
        for path in list(self._files):
            if path.parent == folder:
                file = self._files[path]
                file.named, file.earlier = True, None
                if file.removed:
                    del self._files[path]

    def image(self, source: Path, target: Path) -> Path:
        """Make `target` what may be left of the folder `source`; returns it."""
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for path in source.iterdir():
            # Checkpoints are synced by then. The mark of the last commit isn't, but never is
            # there more of it than now.
            if path.suffix == ".faiss" or (path.suffix == ".last_commit" and self._coin()):
                shutil.copyfile(path, target / path.name)
        for path, file in self._files.items():
            content = self._left(file)
            if content is not None:
                (target / path.name).write_bytes(content)
        return target

    def _left(self, file: _File) -> bytearray | None:
        if not file.named and self._coin():
            return None if file.earlier is None else self._left(file.earlier)
        if file.removed and self._coin():
            return None
        content = bytearray(file.durable)
        for change in self._survivors(file.pending):
            _apply(content, change)
        return content

    def _survivors(self, pending: list[Change]) -> list[Change]:
        """Those of the changes that reach the disk, in one of the ways in which that happens."""
        match self._random.randrange(5):
            case 0:
                return []
            case 1:
                return list(pending)
            case 2:  # in order, up to a torn one
                return self._torn(pending[: self._random.randint(0, len(pending))])
            case 3:  # in any order, the last of them torn
                return self._torn([change for change in pending if self._coin()])
            case _:
                return [part for each in pending for part in _sectors(each) if self._coin()]

    def _torn(self, changes: list[Change]) -> list[Change]:
        if not changes:
            return []
        *whole, last = changes
        parts = _sectors(last)
        return [*whole, *parts[: self._random.randint(0, len(parts))]]

    def _coin(self) -> bool:
        return self._random.random() < 0.5
