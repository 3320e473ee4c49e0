"""From searches and snapshots to hits with their texts."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from deployments.core.collection import Snapshot
from deployments.core.errors import InvalidInput, StoreDamaged
from deployments.core.segment_writes import unit_vectors
from deployments.core.segments import EmbeddingType, Hit, Search, Vectors
from deployments.core.store_sql import StoreReader


def check_searches(searches: Sequence[Search], queries: Vectors, dimension: int) -> Vectors:
    """The queries, ready to be compared. Raises InvalidInput."""
    for search in searches:
        if search.top_k < 1:
            raise InvalidInput(f"top_k is {search.top_k}, expected at least 1.")
        if not 0.0 <= search.min_similarity <= 1.0:
            raise InvalidInput(f"min_similarity is {search.min_similarity}, expected 0 to 1.")
    if len(queries) != len(searches):
        raise InvalidInput(f"{len(queries)} queries came with {len(searches)} searches.")
    return unit_vectors(queries, dimension)


def find_hits(
    reader: StoreReader,
    snapshots: Mapping[EmbeddingType, Snapshot],
    searches: Sequence[Search],
    queries: Vectors,
) -> list[list[Hit]]:
    """Answer all searches from one state: `reader` and `snapshots` are of the same commit.

    Searches of one type go through its vectors together; the texts of all hits are read at once.
    """
    found: list[list[tuple[float, int]]] = [[] for _ in searches]
    for (kind, snapshot), exact in product(snapshots.items(), (False, True)):
        positions = [
            i
            for i, search in enumerate(searches)
            if (search.embedding_type, search.exact) == (kind, exact)
        ]
        if not positions:
            continue
        most = max(searches[i].top_k for i in positions)
        results = snapshot.search(np.ascontiguousarray(queries[positions]), most, exact)
        for i, (cosines, sequences) in zip(positions, results, strict=True):
            best = slice(searches[i].top_k)
            enough = np.clip(cosines[best], 0.0, 1.0) >= searches[i].min_similarity
            found[i] = list(
                zip(cosines[best][enough].tolist(), sequences[best][enough].tolist(), strict=True)
            )
    wanted = sorted({seq for hits in found for _, seq in hits})
    segments = reader.segments(wanted)
    if len(segments) != len(wanted):
        lost = next(seq for seq in wanted if seq not in segments)
        raise StoreDamaged(
            f"Row {lost} is in the index but not in the store. Stop the service and run "
            "`embeddings-service verify`."
        )
    return [[Hit(cosine, seq, *segments[seq]) for cosine, seq in hits] for hits in found]
