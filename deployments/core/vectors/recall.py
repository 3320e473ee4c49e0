"""How many of the true best ten a main part finds, measured on vectors of its own rows."""

from collections.abc import Callable

import numpy as np

from deployments.core.vectors.collection import Snapshot

SAMPLE = 32
BEST = 10


def recall_at_10(snapshot: Snapshot, progress: Callable[[float], None]) -> float | None:
    """Share of the best ten neighbours of sampled rows, the rows themselves apart, that are found.

    Takes as long as scanning all rows 32 times. None without a main part, or with too few rows.
    `progress` is called between the queries and raises to give up.
    """
    live = np.delete(np.arange(len(snapshot.sequences)), snapshot.dead)
    if snapshot.main is None or len(live) <= BEST:
        return None
    found = 0
    rows = np.random.default_rng(0).choice(live, min(SAMPLE, len(live)), replace=False)
    for row in rows:
        progress(1.0)
        query = snapshot.vectors[row : row + 1]
        best, guessed = (
            _neighbours(snapshot, query, int(snapshot.sequences[row]), exact)
            for exact in (True, False)
        )
        found += len(best & guessed)
    return found / (BEST * len(rows))


def _neighbours(snapshot: Snapshot, query: np.ndarray, itself: int, exact: bool) -> set[int]:
    ((_, sequences),) = snapshot.search(query, BEST + 1, exact)
    return set([seq for seq in sequences.tolist() if seq != itself][:BEST])
