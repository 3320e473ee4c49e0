"""Reading an index folder from outside, whether its service runs or not, and changing nothing."""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from deployments.core.durable_files import Disk
from deployments.core.errors import NotReady, StoreDamaged, StoreError
from deployments.core.index import folder_check
from deployments.core.segments import EmbeddingType, ModelIdentity, Models
from deployments.core.storage.store_inspection import FILE_NAME, description, exists
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage_errors import translated

_ATTEMPTS = 5
_TIMEOUT_S = 10.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FolderView:
    """The store of a folder at one moment."""

    folder: Path
    reader: StoreReader
    models: Models
    store_id: str
    commit_id: int

    def counts(self) -> dict[EmbeddingType, int]:
        """How many segments of each type there are."""
        with translated("Cannot read the store"):
            found = dict(
                self.reader.connection.execute(
                    "SELECT embedding_type, count(*) FROM segments GROUP BY embedding_type"
                ).fetchall()
            )
        return {kind: found.get(kind.value, 0) for kind in EmbeddingType}


def read_folder(folder: Path, read: Callable[[FolderView], T]) -> T:
    """Call `read` with the folder's store as it is now, and return what it returns.

    Works beside a running service, which isn't disturbed, and on folders that can't be written.
    `read` is called again if a service began to write to a folder that nobody used at first.
    Raises StoreError if there is no store, LegacyFolder for the files of the old service,
    StoreMismatch for a newer version, StoreDamaged and StoreUnwritable.
    """
    folder_check.refuse_without_store(folder, Disk())
    path = folder / FILE_NAME
    if not exists(folder):
        raise StoreError(
            f"{folder} has no {FILE_NAME}: it is not an index folder of this service, or an "
            "empty one."
        )
    for attempt in range(_ATTEMPTS):
        before = _Files.of(path)
        try:
            result = _read(path, before.have_log, read)
        except StoreError:
            # What came or went while it was opened is no flaw; what is stays one.
            if attempt == _ATTEMPTS - 1 or _Files.of(path) == before:
                raise
            continue
        # With a log, SQLite itself keeps the view whole.
        if before.have_log or _Files.of(path) == before:
            return result
    raise NotReady(f"{path} changed whenever it was read. Try again.")


@dataclass(frozen=True, slots=True)
class _Files:
    """What changes when somebody writes to a store, apart from the log's content."""

    main: tuple[int, int, int]
    have_log: bool

    @classmethod
    def of(cls, path: Path) -> "_Files":
        with translated(f"Cannot read {path}"):
            main = path.stat()
            try:
                log_bytes = path.with_name(path.name + "-wal").stat().st_size
            except FileNotFoundError:
                log_bytes = 0
        return cls((main.st_ino, main.st_size, main.st_mtime_ns), log_bytes > 0)


def _read(path: Path, have_log: bool, read: Callable[[FolderView], T]) -> T:
    view = _open(path, have_log)
    with closing(view.reader.connection):
        return read(view)


def open_view(folder: Path) -> FolderView:
    """A view to keep, for any thread, of a folder whose lock is held; close its connection.

    Raises StoreDamaged and StoreMismatch.
    """
    path = folder / FILE_NAME
    return _open(path, _Files.of(path).have_log)


def _open(path: Path, have_log: bool) -> FolderView:
    # Without a log SQLite would make one even to read, unless told that nobody writes.
    mode = "mode=ro" if have_log else "immutable=1"
    address = f"{path.absolute().as_uri()}?{mode}"
    with translated(f"Cannot read {path}"):
        connection = sqlite3.connect(
            address, uri=True, timeout=_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
    try:
        with translated(f"Cannot read {path}"):
            connection.execute("BEGIN")
            meta, models = description(connection, path)
        return FolderView(
            path.parent,
            StoreReader(connection),
            _of_each_type(path, models),
            meta["store_id"],
            meta["commit_id"],
        )
    except BaseException:
        connection.close()
        raise


def _of_each_type(path: Path, models: Mapping[str, ModelIdentity]) -> Models:
    lacking = [kind.value for kind in EmbeddingType if kind.value not in models]
    if lacking:
        raise StoreDamaged(f"{path} doesn't say which model its {lacking[0]} vectors are of.")
    return {kind: models[kind.value] for kind in EmbeddingType}
