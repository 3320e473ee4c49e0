"""What a disk may hold after the power fails: what was synced, and any part of the rest."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from deployments.core.durable_files import Disk

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
    return [(offset + start, data[start:end]) for start, end in pairwise(cuts)]


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)
    named: bool = False
    """Whether its name in the folder is durable."""
    earlier: "_File | None" = None
    """The file that had the name before, whose removal isn't durable."""
    removed: bool = False
    former: Path | None = None
    """Its name before it got this one, as long as this one isn't durable."""


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
        file = self._files.get(path)
        if file is None:
            return
        for change in file.pending:
            _apply(file.durable, change)
        file.pending = []

    def sync_failed(self, path: Path) -> None:
        file = self._files[path]
        for change in self._survivors(file.pending):
            _apply(file.durable, change)
        file.pending = []

    def renamed(self, source: Path, target: Path) -> None:
        if source in self._files:
            file = self._files.pop(source)
            file.named, file.former, file.earlier = False, source, self._files.get(target)
            self._files[target] = file

    def deleted(self, path: Path) -> None:
        if path in self._files:
            self._files[path].removed = True

    def folder_synced(self, folder: Path) -> None:
        for path in list(self._files):
            if path.parent == folder:
                file = self._files[path]
                file.named, file.earlier, file.former = True, None, None
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
            for name, content in self._left(path, file):
                (target / name).write_bytes(content)
        return target

    def _left(self, path: Path, file: _File) -> Iterator[tuple[str, bytes]]:
        name = path.name
        if not file.named and self._coin():
            if file.earlier is not None:
                yield from self._left(path, file.earlier)
            if file.former is None:
                return
            name = file.former.name
        if file.removed and self._coin():
            return
        content = bytearray(file.durable)
        for change in self._survivors(file.pending):
            _apply(content, change)
        yield name, bytes(content)

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


class PlatterDisk(Disk):
    """A disk whose renames and syncs the platter learns of."""

    def __init__(self, platter: Platter) -> None:
        self._platter = platter

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self._platter.folder_synced(path)
        else:
            self._platter.synced(path)

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        self._platter.renamed(source, target)
