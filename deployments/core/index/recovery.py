"""Filling a collection at the start: from its checkpoint, and from the store where that fails."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deployments.core.durable_files import Disk
from deployments.core.errors import StoreDamaged
from deployments.core.segments import EmbeddingType
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage_errors import RESTORE
from deployments.core.vectors import checkpoint
from deployments.core.vectors.checkpoint import Flaw, Stamp, Unusable
from deployments.core.vectors.collection import Collection

_BLOCK_ROWS = 4096
_HEADROOM = 1.25
_NO_ROWS: npt.NDArray[np.int64] = np.empty(0, np.int64)
_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Recovered:
    """How a collection was filled."""

    flaw: str
    """Why the checkpoint could not be used; empty if it could, or if there is nothing to hold."""
    kind: Flaw | None
    """The same for programs."""
    changed_rows: int
    """By how many rows the checkpoint differs from the store."""
    has_file: bool
    """Whether there is a checkpoint of any kind."""
    held: Stamp | None = None
    """What the checkpoint holds, if it could be used."""


def recover(
    reader: StoreReader, path: Path, expected: Stamp, collection: Collection, disk: Disk
) -> Recovered:
    """Fill an empty collection with the rows of the store.

    Raises StoreDamaged if the checkpoint is newer than the store: the store lost commits then.
    """
    kind = EmbeddingType(expected.embedding_type)
    live = reader.sequences(kind)
    collection.reserve(int(len(live) * _HEADROOM))
    loaded = checkpoint.load(path, expected, disk)
    if not isinstance(loaded, Unusable):
        kept = np.isin(loaded.sequences, live, assume_unique=True)
        added = np.setdiff1d(live, loaded.sequences, assume_unique=True)
        if len(added) == 0 or len(loaded.sequences) == 0 or added[0] > loaded.sequences[-1]:
            if kept.all():
                collection.change(_NO_ROWS, loaded.sequences, loaded.vectors)
            else:
                collection.change(_NO_ROWS, loaded.sequences[kept], loaded.vectors[kept])
            add_from_store(reader, kind, collection, added, expected.dimension)
            changed = len(added) + int(np.sum(~kept))
            return Recovered("", None, changed, True, loaded.stamp)
        loaded = Unusable(Flaw.CONTENT, f"{path.name} lacks rows that it should have")
    if loaded.flaw is Flaw.NEWER:
        raise StoreDamaged(
            f"{loaded.reason}: store.sqlite3 was replaced by an older copy, or its -wal file was "
            "removed. Restore both; or, if the older state is what you want, delete "
            f"store.last_commit and the *_index.faiss files of {path.parent}."
        )
    add_from_store(reader, kind, collection, live, expected.dimension)
    nothing_lost = loaded.flaw is Flaw.MISSING and len(live) == 0
    has_file = loaded.flaw is not Flaw.MISSING
    if nothing_lost:
        return Recovered("", None, len(live), has_file)
    return Recovered(loaded.reason, loaded.flaw, len(live), has_file)


def catch_up(
    reader: StoreReader, kind: EmbeddingType, collection: Collection, dimension: int
) -> int:
    """Make a collection equal to the store again; returns the number of rows that differed."""
    live = reader.sequences(kind)
    have = collection.snapshot.live_sequences()
    removed = np.setdiff1d(have, live, assume_unique=True)
    added = np.setdiff1d(live, have, assume_unique=True)
    if len(removed):
        collection.change(removed, _NO_ROWS, np.empty((0, dimension), np.float32))
    add_from_store(reader, kind, collection, added, dimension)
    return len(removed) + len(added)


def add_from_store(
    reader: StoreReader,
    kind: EmbeddingType,
    collection: Collection,
    sequences: npt.NDArray[np.int64],
    dimension: int,
) -> None:
    """Append rows of the store, some at a time. Raises StoreDamaged for rows not as written."""
    for start in range(0, len(sequences), _BLOCK_ROWS):
        block = sequences[start : start + _BLOCK_ROWS]
        vectors = reader.proven_vectors(kind, block.tolist(), dimension)
        squares = np.einsum("ij,ij->i", vectors, vectors)
        # Written so that NaN fails: it compares false with everything.
        wrong = np.flatnonzero(~(np.abs(squares - 1) <= 2 * _UNIT_TOLERANCE))
        if len(wrong):
            raise StoreDamaged(
                f"The vector of row {block[wrong[0]]} in the store is no unit vector. {RESTORE}"
            )
        collection.change(_NO_ROWS, block, vectors)
