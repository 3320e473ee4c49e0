"""Putting a complete new index in a folder's place, so that a kill leaves the old or the new one.

The new files are made in a subfolder, on the same file system even if the folder is a mount
point. The rename of the store is the moment in which the new index takes over; checkpoints are
disposable, so they go before it and come after it.
"""

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from deployments.core.durable_files import Disk, Sink
from deployments.core.segments import EmbeddingType
from deployments.core.storage import commit_mark
from deployments.core.storage.store_inspection import FILE_NAME
from deployments.core.storage_errors import translated
from deployments.core.vectors import checkpoint, main_part_files

INCOMING = ".incoming"
"""Subfolder in which a new index is made."""

_LOG = f"{FILE_NAME}-wal"
_BESIDE_STORE = (_LOG, f"{FILE_NAME}-shm", f"{FILE_NAME}-journal", commit_mark.FILE_NAME)


def pickle_of(folder: Path, kind: EmbeddingType) -> Path:
    """Where the service that this one replaces kept a type's metadata."""
    return folder / f"{kind.value}_metadata.pkl"


def index_files(folder: Path) -> list[Path]:
    """The files of an index that are in a folder, those of the old service included."""
    names = [
        FILE_NAME,
        *_BESIDE_STORE,
        *(checkpoint.path_of(folder, kind).name for kind in EmbeddingType),
        *(main_part_files.path_of(folder, kind).name for kind in EmbeddingType),
        *(pickle_of(folder, kind).name for kind in EmbeddingType),
    ]
    return [folder / name for name in names if (folder / name).exists()]


@contextmanager
def incoming_folder(folder: Path) -> Iterator[Path]:
    """An empty subfolder for a new index, gone at the end; the folder's lock must be held.

    What a run that was killed has left in it is removed.
    """
    incoming = folder / INCOMING
    with translated(f"Cannot prepare {incoming}"):
        if incoming.exists():
            shutil.rmtree(incoming)
        incoming.mkdir()
    try:
        yield incoming
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def unused(path: Path) -> Path:
    """The path with the time, in a form that no file has yet."""
    stamped = path.with_name(f"{path.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    found, count = stamped, 1
    while found.exists():
        count += 1
        found = stamped.with_name(f"{stamped.name}-{count}")
    return found


def fold_log(folder: Path) -> None:
    """Move what is in the store's log into its main file, as far as the two are whole."""
    if (folder / _LOG).exists() and (folder / _LOG).stat().st_size:
        with suppress(sqlite3.Error), closing(sqlite3.connect(folder / FILE_NAME)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def keep_aside(files: Sequence[Path], place: Path, disk: Disk) -> None:
    """Give files a second name in a folder, durably; copies them where that isn't possible."""
    with translated(f"Cannot keep files in {place}"):
        place.mkdir(parents=True, exist_ok=True)
        for file in files:
            kept = place / file.name
            if kept.exists() and same_content(kept, file):
                continue
            try:
                kept.hardlink_to(file)
            except FileExistsError:
                raise
            except OSError:
                copy_file(file, kept, disk)
        disk.sync_folder(place)
        disk.sync_folder(place.parent)


def same_content(left: Path, right: Path) -> bool:
    """Whether two files are one or have the same bytes."""
    if left.samefile(right):
        return True
    if left.stat().st_size != right.stat().st_size:
        return False
    disk = Disk()
    with disk.reading(left) as one, disk.reading(right) as other:
        pairs = zip(one.blocks(one.size), other.blocks(other.size), strict=True)
        return all(block == opposite for block, opposite in pairs)


def copy_file(source: Path, target: Path, disk: Disk) -> None:
    """Copy a file as it is when opened, durably and whole or not at all. Raises OSError."""
    with disk.reading(source) as file:

        def produce(sink: Sink) -> None:
            for block in file.blocks(file.size):
                sink(bytes(block))

        disk.write_atomically(target, produce)


def put_in_place(incoming: Path, folder: Path, disk: Disk) -> None:
    """Make the index in `incoming`, complete and durable, the folder's. The lock must be held.

    Files of an index that were there are gone afterwards: keep them aside before.
    """
    store = folder / FILE_NAME
    with translated(f"Cannot put the new index in {folder}"):
        # SQLite would apply an old log to the new store, and a store that is behind its mark or
        # a checkpoint counts as damaged; the old store can do without them. Without an old store
        # the folder must not look empty, or a service would start with an empty index.
        for name in _BESIDE_STORE:
            (folder / name).unlink(missing_ok=True)
        for kind in EmbeddingType if store.exists() else ():
            old = checkpoint.path_of(folder, kind)
            if old.exists() and checkpoint.has_trailer(old, disk):
                old.unlink()
            main_part_files.path_of(folder, kind).unlink(missing_ok=True)
        disk.sync_folder(folder)
        disk.replace(incoming / FILE_NAME, store)
        disk.sync_folder(folder)
        for kind in EmbeddingType:
            for path_of in (checkpoint.path_of, main_part_files.path_of):
                new, old = path_of(incoming, kind), path_of(folder, kind)
                if new.exists():
                    disk.replace(new, old)
                else:
                    old.unlink(missing_ok=True)
            pickle_of(folder, kind).unlink(missing_ok=True)
        disk.sync_folder(folder)
