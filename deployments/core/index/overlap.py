"""How much two indices of the same rows agree about what is nearest."""

from collections.abc import Sequence

import numpy as np

from deployments.core.segments import Vectors
from deployments.core.vectors.collection import Snapshot

TOP = 10


def nearest(snapshot: Snapshot, queries: Vectors, own: Sequence[int]) -> list[set[int]]:
    """The rows of the best ten for each query, without the one at `own` that it is the text of.

    `queries` is (len(own), dimension) float32 of unit length.
    """
    found = snapshot.search(np.ascontiguousarray(queries), TOP + 1, exact=True)
    return [
        set([seq for seq in sequences.tolist() if seq != row][:TOP])
        for (_, sequences), row in zip(found, own, strict=True)
    ]


def mean_overlap(one: Sequence[set[int]], other: Sequence[set[int]]) -> float:
    """The mean share, 0…1, of the rows that two lists of results have in common."""
    shares = [
        len(left & right) / max(len(left), 1) if left or right else 1.0
        for left, right in zip(one, other, strict=True)
    ]
    return float(np.mean(shares))
