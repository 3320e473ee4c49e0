"""From searches and snapshots to hits with their texts."""

from collections.abc import Mapping, Sequence

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
    for kind, snapshot in snapshots.items():
        positions = [i for i, search in enumerate(searches) if search.embedding_type == kind]
        if not positions:
            continue
        most = max(searches[i].top_k for i in positions)
        results = snapshot.search(np.ascontiguousarray(queries[positions]), most)
        for i, (cosines, sequences) in zip(positions, results, strict=True):
            best = slice(searches[i].top_k)
            enough = np.clip(cosines[best], 0.0, 1.0) >= searches[i].min_similarity
            found[i] = list(
                zip(cosines[best][enough].tolist(), sequences[best][enough].tolist(), strict=True)
            )
    wanted = sorted({seq for hits in found for _, seq in hits})
    segments = _segments(reader, snapshots, wanted)
    return [[Hit(cosine, seq, *segments[seq]) for cosine, seq in hits] for hits in found]


def _segments(
    reader: StoreReader, snapshots: Mapping[EmbeddingType, Snapshot], wanted: Sequence[int]
) -> dict[int, tuple[Id, Segment]]:
    """Media item id and segment of each row.

    Each row is checked together with the vector that the search compared, so that a hit's text
    and its score belong together. Raises StoreDamaged.
    """
    rows = reader.rows(wanted)
    if len(rows) != len(wanted):
        lost = next(seq for seq in wanted if seq not in rows)
        raise StoreDamaged(f"Row {lost} is in the index but not in the store. {RESTORE}")
    segments = {}
    for seq, row in rows.items():
        snapshot = snapshots.get(row[1])
        vector = None if snapshot is None else snapshot.vector_of(seq)
        if vector is None or not is_intact(row, vector.astype("<f4", copy=False).tobytes()):
            raise not_as_written(name_of(row))
        _, _, media_item_id, *fields, _, _, _ = row
        segments[seq] = (media_item_id, segment_from(seq, fields))
    return segments
