"""How near segments are to a query, seen in their surroundings.

One segment alone may say little ("and what follows from that?"), and some are somewhat near to
everything ("welcome back"). So a segment's vector v is joined with those of its neighbours in time,
and what the result has in common with other things is taken off:

    z = (v + SURROUNDINGS · n) / |v + SURROUNDINGS · n|
    common = mean of the HUB_NEIGHBOURS highest u·z
    nearness = q·z - HUBNESS · (common - mean of common of all rows that are asked for)

n is the unit sum of v and up to NEIGHBOURS vectors on each side; u are the vectors of at most
REFERENCES segments of other media items, evenly out of the index. The second term is that of
CSLS (Conneau et al., Word Translation Without Parallel Data, 2018, section 2.3), with passages in
the place of queries. Less its mean, it decides between rows of one index and leaves them where they
are among those of others, of which more or less is alike.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from deployments.core.search.media_orders import MediaOrder
from deployments.core.segments import Vectors
from deployments.core.vectors.ascending import look_up
from deployments.core.vectors.collection import Snapshot
from deployments.core.vectors.main_part import Sequences

NEIGHBOURS = 2
SURROUNDINGS = 0.5
HUBNESS = 0.5
HUB_NEIGHBOURS = 8
REFERENCES = 2048

_ROWS_AT_ONCE = 4096

Values = npt.NDArray[np.float64]


def nearness(
    snapshot: Snapshot, orders: Mapping[int, MediaOrder], sequences: Sequences, queries: Vectors
) -> Values:
    """How near each query is to each of these rows, shape (len(queries), len(sequences)).

    `orders` has the order of each row's media item in the snapshot, by sequence number; `queries`
    is (q, dimension) float32 of unit length.
    """
    products = np.empty((len(queries), len(sequences)))
    common = np.empty(len(sequences))
    for start in range(0, len(sequences), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        joined = _joined(snapshot, orders, sequences[rows])
        products[:, rows] = queries @ joined.T
        common[rows] = _in_common(snapshot, orders, sequences[rows], joined)
    return products - HUBNESS * (common - common.mean()) if len(sequences) else products


def _joined(snapshot: Snapshot, orders: Mapping[int, MediaOrder], sequences: Sequences) -> Vectors:
    around = [orders[sequence].around(sequence, NEIGHBOURS) for sequence in sequences.tolist()]
    starts = np.cumsum([0, *map(len, around)])[:-1]
    vectors = snapshot.vectors_of(np.concatenate(around))
    sums = _unit(np.add.reduceat(vectors, starts, axis=0))
    return _unit(snapshot.vectors_of(sequences) + np.float32(SURROUNDINGS) * sums)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # Neighbours may cancel each other out; what is left of them has no direction.
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def _in_common(
    snapshot: Snapshot, orders: Mapping[int, MediaOrder], sequences: Sequences, joined: Vectors
) -> Values:
    """Of each joined vector the mean cosine to the nearest references, 0 where there are none."""
    references = _references(snapshot)
    cosines = joined @ snapshot.vectors_of(references).T
    own: dict[int, npt.NDArray[np.bool_]] = {}
    for row, sequence in enumerate(sequences.tolist()):
        order = orders[sequence]
        if id(order) not in own:
            _, own[id(order)] = look_up(references, order.rows)
        cosines[row, own[id(order)]] = -np.inf
    count = min(HUB_NEIGHBOURS, cosines.shape[1])
    if not count:
        return np.zeros(len(sequences))
    nearest = np.partition(cosines, -count, axis=1)[:, -count:].astype(np.float64)
    there = np.isfinite(nearest)
    sums = np.where(there, nearest, 0.0).sum(axis=1)
    return np.asarray(sums / np.maximum(there.sum(axis=1), 1), np.float64)


def _references(snapshot: Snapshot) -> Sequences:
    rows = len(snapshot.sequences)
    count = min(rows, REFERENCES)
    places = np.arange(count) * rows // max(count, 1)
    return snapshot.live_among(snapshot.sequences[places])
