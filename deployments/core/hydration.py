"""From searches and snapshots to hits with their texts."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from deployments.core.collection import Snapshot
from deployments.core.errors import InvalidInput, StoreDamaged
from deployments.core.segment_rows import segment_from
from deployments.core.segment_writes import unit_vectors
from deployments.core.segments import EmbeddingType, Hit, Id, Search, Segment, Vectors
from deployments.core.storage_errors import RESTORE
from deployments.core.store_sql import StoreReader, not_as_written
from deployments.core.stored_rows import is_intact, name_of


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
    wanted: dict[EmbeddingType, set[int]] = {}
    for search, hits in zip(searches, found, strict=True):
        wanted.setdefault(search.embedding_type, set()).update(seq for _, seq in hits)
    segments: dict[int, tuple[Id, Segment]] = {}
    for kind, rows in wanted.items():
        segments |= _segments(reader, kind, snapshots[kind], sorted(rows))
    return [[Hit(cosine, seq, *segments[seq]) for cosine, seq in hits] for hits in found]


def _segments(
    reader: StoreReader, kind: EmbeddingType, snapshot: Snapshot, wanted: Sequence[int]
) -> dict[int, tuple[Id, Segment]]:
    """Media item id and segment of each of these rows of a type.

    Each row is checked together with the vector that the search compared, so that a hit's text
    and its score belong together. Raises StoreDamaged.
    """
    rows = reader.rows(wanted)
    vectors = snapshot.vectors_of(np.array(wanted, np.int64)).astype("<f4", copy=False)
    segments = {}
    for seq, vector in zip(wanted, vectors, strict=True):
        row = rows.get(seq)
        if row is None:
            raise StoreDamaged(f"Row {seq} is in the index but not in the store. {RESTORE}")
        if row[1] != kind or not is_intact(row, vector.tobytes()):
            raise not_as_written(name_of(row))
        segments[seq] = (row[2], segment_from(seq, row[3:8]))
    return segments
