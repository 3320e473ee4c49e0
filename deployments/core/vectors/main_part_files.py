"""`<type>_main_index.faiss`: a main part that is worth keeping, as a checkpoint's neighbour.

The file has the form of a checkpoint: a Faiss file (IndexIDMap2 of the main part's index, ids are
sequence numbers, ascending), the stamp and its trailer. It is disposable: without it, or with
anything wrong with it, the main part is built anew while searches scan.
"""

import logging
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from deployments.core.durable_files import Disk
from deployments.core.segments import EmbeddingType, IndexType
from deployments.core.vectors import checkpoint, gpu
from deployments.core.vectors.checkpoint import Flaw, Stamp, Unusable
from deployments.core.vectors.collection import Snapshot
from deployments.core.vectors.main_part import MainPart

logger = logging.getLogger(__name__)


def path_of(folder: Path, kind: EmbeddingType) -> Path:
    """Where a type's main part is kept."""
    return folder / f"{kind.value}_main_index.faiss"


def write(
    folder: Path,
    kind: EmbeddingType,
    main: MainPart,
    fingerprint: str,
    store_id: str,
    disk: Disk,
) -> None:
    """Keep a main part. Raises OSError and what `disk` raises; the old file is then still there."""
    index = gpu.moved_back(main.index)
    # Put around the index that is searched: nothing of it is copied.
    numbered = faiss.IndexIDMap2(faiss.IndexFlatIP(index.d))
    numbered.index = index
    numbered.own_fields = False
    faiss.copy_array_to_vector(main.sequences, numbered.id_map)
    numbered.ntotal = len(main)
    stamp = Stamp(
        _contents(kind, main.type),
        fingerprint,
        index.d,
        len(main),
        main.last_sequence,
        store_id,
        main.commit_id,
    )
    checkpoint.write_index(path_of(folder, kind), stamp, numbered, disk)


def load(
    folder: Path,
    kind: EmbeddingType,
    wanted: IndexType,
    expected: Stamp,
    snapshot: Snapshot,
    disk: Disk,
) -> MainPart | None:
    """The kept main part if it is of the wanted type and has all rows that it should have.

    `expected` is as for checkpoint.load. What is wrong with the file is logged.
    """
    path = path_of(folder, kind)
    expected = Stamp(
        _contents(kind, wanted),
        expected.fingerprint,
        expected.dimension,
        0,
        expected.last_seq,
        expected.store_id,
        expected.commit_id,
    )
    loaded = checkpoint.load_index(path, expected, disk)
    if not isinstance(loaded, Unusable):
        stamp, numbered = loaded
        sequences = faiss.vector_to_array(numbered.id_map)
        due = snapshot.live_sequences()
        due = due[: np.searchsorted(due, stamp.last_seq, "right")]
        if np.all(np.diff(sequences) > 0) and np.isin(due, sequences, assume_unique=True).all():
            numbered.own_fields = False
            index: Any = faiss.downcast_index(numbered.index)
            index.thisown = True
            return MainPart(
                wanted,
                gpu.moved(wanted, index),
                sequences,
                stamp.last_seq,
                stamp.commit_id,
                trained_rows=len(sequences),
                # What is worth keeping once is worth keeping again.
                build_s=float("inf"),
            )
        loaded = Unusable(Flaw.CONTENT, f"{path.name} lacks rows that it should have")
    if loaded.flaw is not Flaw.MISSING:
        logger.warning("%s: the %s index is built again in the background.", loaded.reason, kind)
    return None


def _contents(kind: EmbeddingType, index_type: IndexType) -> str:
    """What the stamp says instead of a type, so that no file is taken for another's."""
    return f"{kind.value} {index_type.value}"
