"""From searches and snapshots to hits with their texts."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from deployments.core.collection import Snapshot
from deployments.core.errors import InvalidInput, StoreDamaged
from deployments.core.keyword_index import KeywordScores
from deployments.core.ranking import Ranked, by_both, by_keywords, by_meaning, nearest_needed
from deployments.core.segment_rows import segment_from
from deployments.core.segment_writes import unit_vectors
from deployments.core.segments import (
    EmbeddingType,
    Hit,
    Id,
    Search,
    SearchMode,
    Segment,
    Vectors,
)
from deployments.core.storage_errors import RESTORE
from deployments.core.store_sql import StoreReader, not_as_written
from deployments.core.stored_rows import is_intact, name_of

KeywordSearch = Callable[[EmbeddingType, Snapshot, Sequence[str]], Sequence[KeywordScores]]
"""The keyword scores of a snapshot's rows for each text."""


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
    keyword_search: KeywordSearch,
) -> list[list[Hit]]:
    """Answer all searches from one state: `reader` and `snapshots` are of the same commit.

    Searches of one type go through its vectors together; the texts of all hits are read at once.
    """
    found: list[list[Ranked]] = [[] for _ in searches]
    for kind, snapshot in snapshots.items():
        positions = [i for i, search in enumerate(searches) if search.embedding_type == kind]
        words = [i for i in positions if searches[i].mode != SearchMode.SEMANTIC]
        worded = {}
        if words:
            texts = [searches[i].text for i in words]
            worded = dict(zip(words, keyword_search(kind, snapshot, texts), strict=True))
        for exact in (False, True):
            meant = [
                i
                for i in positions
                if searches[i].exact == exact and searches[i].mode != SearchMode.KEYWORD
            ]
            if not meant:
                continue
            most = max(nearest_needed(searches[i]) for i in meant)
            nearest = snapshot.search(np.ascontiguousarray(queries[meant]), most, exact)
            for i, (cosines, sequences) in zip(meant, nearest, strict=True):
                best = slice(nearest_needed(searches[i]))
                if i in worded:
                    found[i] = by_both(
                        searches[i], snapshot, queries[i], sequences[best], worded.pop(i)
                    )
                else:
                    found[i] = by_meaning(searches[i], cosines[best], sequences[best])
        for i, keywords in worded.items():
            found[i] = by_keywords(searches[i], snapshot, queries[i], keywords)
    wanted: dict[EmbeddingType, set[int]] = {}
    for search, hits in zip(searches, found, strict=True):
        wanted.setdefault(search.embedding_type, set()).update(each.sequence for each in hits)
    segments: dict[int, tuple[Id, Segment]] = {}
    for kind, rows in wanted.items():
        segments |= _segments(reader, kind, snapshots[kind], sorted(rows))
    return [
        [
            Hit(each.cosine, each.sequence, *segments[each.sequence], each.score, each.explanation)
            for each in hits
        ]
        for hits in found
    ]


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
