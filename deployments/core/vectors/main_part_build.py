"""Building a main part from a snapshot: anew, or out of the present one and what came after it."""

import time
from collections.abc import Callable

import numpy as np

from deployments.core.segments import IndexType, Vectors
from deployments.core.vectors import gpu, main_part_types
from deployments.core.vectors.collection import Snapshot
from deployments.core.vectors.index_policy import Plan
from deployments.core.vectors.main_part import MainPart

# Between two blocks a build can be given up; HNSW takes a millisecond or more for each row.
_BLOCK_ROWS = {IndexType.HNSW: 256}
_USUAL_BLOCK_ROWS = 16_384

Progress = Callable[[float], None]
"""Takes a share, 0…1; raises to give up."""


def build(
    plan: Plan, snapshot: Snapshot, commit_id: int, last_sequence: int, progress: Progress
) -> MainPart:
    """A main part with the snapshot's live rows, which are of that commit of the store.

    `last_sequence` is at least that of the snapshot's last row. Needs memory for the new index
    beside the old one, and the calling thread only. Raises what `progress` does, MemoryError, and
    RuntimeError from Faiss.
    """
    started = time.monotonic()
    main = snapshot.main
    if plan.extends and main is not None:
        first = int(np.searchsorted(snapshot.sequences, main.last_sequence, "right"))
        if gpu.holds(main.index):
            index = gpu.moved_back(main.index)
        else:
            index = main_part_types.copied(plan.type, main.index)
        sequences, trained_rows, before_s = [main.sequences], main.trained_rows, main.build_s
    else:
        first, sequences, trained_rows, before_s = 0, [], len(snapshot), 0.0
        sample = _sample(snapshot, main_part_types.training_rows(plan.type, trained_rows))
        index = main_part_types.trained(plan.type, sample, trained_rows, progress)
    rows = len(snapshot.sequences)
    block = _BLOCK_ROWS.get(plan.type, _USUAL_BLOCK_ROWS)
    for start in range(first, rows, block):
        progress((start - first) / (rows - first))
        some, vectors = snapshot.live(start, start + block)
        index.add(vectors)
        sequences.append(some)
    index = gpu.moved(plan.type, index)
    return MainPart(
        plan.type,
        index,
        np.concatenate(sequences),
        last_sequence,
        commit_id,
        trained_rows,
        before_s + time.monotonic() - started,
    )


def _sample(snapshot: Snapshot, count: int) -> Vectors:
    """The vectors of some live rows, always the same ones."""
    live = np.delete(np.arange(len(snapshot.sequences)), snapshot.dead)
    if count < len(live):
        live = np.sort(np.random.default_rng(0).choice(live, count, replace=False))
    return snapshot.vectors[live]
