"""The checkpoints of one index folder: filling collections from them, and writing them anew."""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from deployments.core.durable_files import Disk
from deployments.core.errors import NotReady
from deployments.core.index import recovery
from deployments.core.index.checkpoint_schedule import CheckpointSchedule
from deployments.core.index.index_condition import HeldCheckpoint
from deployments.core.segments import EmbeddingType
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage_errors import translated
from deployments.core.vectors import checkpoint
from deployments.core.vectors.checkpoint import Flaw
from deployments.core.vectors.collection import Collection, Snapshot
from deployments.core.vectors.published_state import State

logger = logging.getLogger(__name__)


class IndexCheckpoints:
    """One file a type, and which of them are out of date."""

    def __init__(self, folder: Path, store_id: str, disk: Disk) -> None:
        self._folder = folder
        self._store_id = store_id
        self._disk = disk
        self._writing = threading.Lock()
        self._ended = False
        self.schedule = CheckpointSchedule()
        self.flaws: dict[EmbeddingType, Flaw] = {}
        """Of the checkpoints that could not be used at the start."""
        self.held: dict[EmbeddingType, HeldCheckpoint] = {}
        """The checkpoints on disk."""

    def recover(
        self, reader: StoreReader, collections: Mapping[EmbeddingType, Collection]
    ) -> dict[EmbeddingType, str]:
        """Fill empty collections; returns the types that the store had to rebuild, and why.

        Raises StoreDamaged if a checkpoint is newer than the store.
        """
        rebuilt = {}
        commit_id, last_sequence = reader.commit_id(), reader.last_sequence()
        for kind, collection in collections.items():
            path = checkpoint.path_of(self._folder, kind)
            expected = self._stamp(kind, collection.snapshot, commit_id, last_sequence)
            found = recovery.recover(reader, path, expected, collection, self._disk)
            if found.held is not None:
                self._note(kind, path, found.held.last_seq)
            if found.flaw and found.kind:
                rebuilt[kind], self.flaws[kind] = found.flaw, found.kind
                logger.warning("%s: the %s index was rebuilt from the store.", found.flaw, kind)
            if found.changed_rows or not found.has_file or found.flaw:
                self.schedule.changed(kind, found.changed_rows)
        return rebuilt

    def write(
        self, current: Callable[[], State], *, force: bool = False, last: bool = False
    ) -> None:
        """Write those of the types that changed, or with `force` all.

        Raises StoreUnwritable or StoreFull; the checkpoint that was there is there still. After a
        call with `last` the folder may be another's: NotReady.
        """
        with self._writing:
            if self._ended:
                raise NotReady("The index is closed.")
            self._ended = last
            # In this order: what is counted as pending is then surely in the state.
            pending = self.schedule.pending()
            state = current()
            for kind, snapshot in state.snapshots.items():
                if kind in pending or force:
                    path = checkpoint.path_of(self._folder, kind)
                    stamp = self._stamp(kind, snapshot, state.commit_id, state.last_sequence)
                    with translated(f"Cannot write {path}"):
                        checkpoint.write(path, stamp, snapshot.blocks(), self._disk)
                        self._note(kind, path, stamp.last_seq)
                    self.schedule.written(kind, pending.get(kind, 0))

    def _note(self, kind: EmbeddingType, path: Path, last_sequence: int) -> None:
        with suppress(OSError):
            self.held[kind] = HeldCheckpoint(last_sequence, path.stat().st_mtime)

    def _stamp(
        self, kind: EmbeddingType, snapshot: Snapshot, commit_id: int, last_sequence: int
    ) -> checkpoint.Stamp:
        return checkpoint.Stamp(
            kind.value,
            snapshot.fingerprint,
            snapshot.vectors.shape[1],
            len(snapshot),
            last_sequence,
            self._store_id,
            commit_id,
        )
