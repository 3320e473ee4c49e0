"""A damaged index folder, searched as far as its rows are provably intact, and never written."""

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import TypeVar

import numpy as np

from deployments.core.damage import Damage, Salvage
from deployments.core.durable_files import Disk
from deployments.core.errors import NotReady, ServiceError, StoreDamaged, StoreMismatch
from deployments.core.folders.folder_view import FolderView, open_view
from deployments.core.folders.salvage import DamagedStore, nothing_is_provable
from deployments.core.folders.salvage_source import readable_folder
from deployments.core.index import folder_check
from deployments.core.index.index_condition import IndexCondition
from deployments.core.index.index_reads import IndexReads
from deployments.core.pace import Pace
from deployments.core.search.one_commit import Snapshots
from deployments.core.segments import (
    EmbeddingType,
    Hit,
    IndexState,
    IndexStats,
    IndexType,
    ModelIdentity,
    Models,
    Queries,
    Search,
    UpsertResult,
    models_by_type,
)
from deployments.core.storage import keyword_sql, schema_sql
from deployments.core.storage.folder_lock import FolderLock
from deployments.core.storage.operations import Operation
from deployments.core.storage.store_reader import StoreReader
from deployments.core.vectors.collection import Snapshot, empty_collections

logger = logging.getLogger(__name__)

_ROWS_AT_ONCE = 4096

T = TypeVar("T")


class SalvagedIndex:
    """What SegmentIndex offers, read-only: every write raises StoreDamaged.

    Not a byte of the folder is changed, apart from its lock file.
    """

    def __init__(
        self,
        models: Models,
        view: FolderView,
        snapshots: dict[EmbeddingType, Snapshot],
        intact: sqlite3.Connection,
        salvage: Salvage,
        opened: ExitStack,
        recovery_s: float,
    ) -> None:
        """Take over a view, and what is to be closed at the end; use `open` instead."""
        self.models = models
        self._view = view
        self._opened = opened
        self._recovery_s = recovery_s
        self._snapshots = snapshots
        self._reader = StoreReader(intact)
        self.reads = IndexReads(self)
        self._salvage = salvage
        self._reading = threading.Lock()
        self._closed = False

    @classmethod
    def open(
        cls, folder: Path, models: ModelIdentity | Models, lock: FolderLock | None = None
    ) -> "SalvagedIndex":
        """Read a folder's whole store, damaged or not, and keep what is intact in memory.

        Raises FolderLocked, LegacyFolder, StoreMismatch for another model or a newer version, and
        StoreDamaged if there is no store, or none of which anything can be proven.
        """
        started, models = monotonic(), models_by_type(models)
        with ExitStack() as opened:
            opened.enter_context(lock or FolderLock(folder))
            try:
                readable = opened.enter_context(readable_folder(folder))
                folder_check.refuse_without_store(readable, Disk())
                view = open_view(readable)
            except StoreDamaged as error:
                raise nothing_is_provable(folder, error) from error
            opened.callback(view.reader.connection.close)
            for kind, model in models.items():
                found = view.models[kind]
                if not found.makes_the_same_as(model):
                    raise StoreMismatch(
                        f"{folder} holds {kind} vectors of model {found.name}, but {model.name} "
                        f"is configured: set EMBEDDING_MODEL={found.name}."
                    )
            store = DamagedStore(view)
            intact = _empty_store()
            opened.callback(intact.close)
            snapshots = _take_in(store, models, intact)
            salvage = store.salvage()
            logger.warning("Salvage of %s, read-only: %s", folder, salvage.summary)
            return cls(
                models, view, snapshots, intact, salvage, opened.pop_all(), monotonic() - started
            )

    def apply(self, operations: Sequence[Operation]) -> list[UpsertResult | int | ServiceError]:
        """Refuse. Raises StoreDamaged."""
        raise StoreDamaged(
            "Writes are refused: the store is damaged, and EMBEDDINGS_SALVAGE is set, so what is "
            f"intact of it is only searched. {self._salvage.summary} To write again, restore the "
            "folder from a backup (`embeddings-service restore`), or take what is intact into a "
            "new folder (`embeddings-service export --salvage`, then `import` with another "
            "FAISS_INDEX_DIR), send lost media items again, and unset EMBEDDINGS_SALVAGE."
        )

    def read(self, work: Callable[[StoreReader, Snapshots], T]) -> T:
        """What `work` returns for the intact rows. Raises NotReady after close()."""
        # One connection, one after the other: this is no mode for a busy day.
        with self._reading:
            if self._closed:
                raise NotReady("The index is closed.")
            return work(self._reader, self._snapshots)

    def search(self, searches: Sequence[Search], queries: Queries) -> list[list[Hit]]:
        """The hits of each answer; see IndexReads.answer."""
        return [answer.hits for answer in self.reads.answer(searches, queries)]

    def stats(self) -> IndexStats:
        """Model, intact rows by type, and what is lost."""
        last = [int(each.sequences[-1]) for each in self._snapshots.values() if len(each)]
        vectors = {kind: len(snapshot) for kind, snapshot in self._snapshots.items()}
        return IndexStats(
            self.models,
            vectors,
            max(last, default=0),
            salvage=self._salvage,
            indices={
                kind: IndexState(
                    configured=IndexType.FLAT,
                    type=IndexType.FLAT,
                    rows=rows,
                    deleted_rows=0,
                    main_rows=0,
                    building=False,
                    build_progress=None,
                    recall_at_10=None,
                )
                for kind, rows in vectors.items()
            },
        )

    def condition(self) -> IndexCondition:
        """What to watch."""
        stats = self.stats()
        return IndexCondition(
            stats.vectors,
            self._view.commit_id,
            stats.last_sequence,
            self._recovery_s,
            damage=Damage(self._salvage.summary, self._salvage.lost_rows),
            salvage=self._salvage,
        )

    def checkpoint_due(self) -> bool:
        """Never."""
        return False

    def checkpoint(self, force: bool = False) -> None:
        """Write nothing."""

    def check(self, pace: Pace) -> None:
        """Nothing that opening didn't do."""

    def close(self) -> None:
        """Close the store and release the lock."""
        with self._reading:
            if not self._closed:
                self._closed = True
                self._opened.close()

    def __enter__(self) -> "SalvagedIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _empty_store() -> sqlite3.Connection:
    """A store in memory for intact rows: what surrounds them in the file may be damaged."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    # A damaged store may show a segment's earlier version beside the present one.
    connection.executescript(schema_sql.script().replace("UNIQUE INDEX", "INDEX"))
    connection.execute("INSERT INTO meta VALUES ('commit_id', 0)")
    return connection


def _take_in(
    store: DamagedStore, models: Models, intact: sqlite3.Connection
) -> dict[EmbeddingType, Snapshot]:
    """Copy the intact rows, apart from their vectors, which are in the snapshots."""
    collections = empty_collections(models)
    none = np.empty(0, np.int64)
    rows = store.rows()
    while block := list(islice(rows, _ROWS_AT_ONCE)):
        intact.executemany(
            "INSERT INTO segments VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            [row for row, _ in block],
        )
        for kind, collection in collections.items():
            here = [(row[0], row[4], vector) for row, vector in block if row[1] == kind]
            if here:
                sequences = np.array([seq for seq, _, _ in here], np.int64)
                vectors = np.frombuffer(b"".join(vector for _, _, vector in here), "<f4")
                keyword_sql.add(intact, kind, ((seq, text) for seq, text, _ in here))
                vectors = vectors.reshape(len(here), -1).astype(np.float32, copy=False)
                collection.change(none, sequences, vectors)
    return {kind: collection.snapshot for kind, collection in collections.items()}
