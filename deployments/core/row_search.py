"""Which rows each of some searches finds, from one state of the store and the vectors."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from deployments.core.collection import Snapshot
from deployments.core.errors import InvalidInput
from deployments.core.filters import Filter
from deployments.core.keyword_index import KeywordScores
from deployments.core.ranking import Ranked, by_both, by_keywords, by_meaning, nearest_needed
from deployments.core.segment_writes import unit_vectors
from deployments.core.segments import EmbeddingType, Search, SearchMode, Vectors

KeywordSearch = Callable[[EmbeddingType, Snapshot, Sequence[str]], Sequence[KeywordScores]]
"""The keyword scores of a snapshot's rows for each text."""

Restrict = Callable[[EmbeddingType, Snapshot, Filter], Snapshot]
"""A snapshot's rows that match a filter."""


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


def find_rows(
    snapshots: Mapping[EmbeddingType, Snapshot],
    searches: Sequence[Search],
    queries: Vectors,
    keyword_search: KeywordSearch,
    restrict: Restrict,
) -> list[list[Ranked]]:
    """For each search its rows, best first.

    Searches of one type with the same filter go through its vectors together. A word's weight
    doesn't depend on the filter: it is that of the word among all rows.
    """
    found: list[list[Ranked]] = [[] for _ in searches]
    for kind, snapshot in snapshots.items():
        positions = [i for i, search in enumerate(searches) if search.embedding_type == kind]
        words = [i for i in positions if searches[i].mode != SearchMode.SEMANTIC]
        worded = {}
        if words:
            texts = [searches[i].text for i in words]
            worded = dict(zip(words, keyword_search(kind, snapshot, texts), strict=True))
        for wanted in dict.fromkeys(searches[i].filter for i in positions):
            here = [i for i in positions if searches[i].filter == wanted]
            rows = snapshot
            if wanted is not None:
                rows = restrict(kind, snapshot, wanted)
                live = rows.live_sequences()
                worded |= {i: worded[i].among(live) for i in here if i in worded}
            for exact in (False, True):
                alike = [i for i in here if searches[i].exact == exact]
                _find_alike(rows, alike, searches, queries, worded, found)
    return found


def _find_alike(
    snapshot: Snapshot,
    positions: Sequence[int],
    searches: Sequence[Search],
    queries: Vectors,
    worded: Mapping[int, KeywordScores],
    found: list[list[Ranked]],
) -> None:
    """Put into `found` what the searches at these positions find, which see the same rows."""
    meant = [i for i in positions if searches[i].mode != SearchMode.KEYWORD]
    if meant:
        most = max(nearest_needed(searches[i]) for i in meant)
        exact = searches[meant[0]].exact
        nearest = snapshot.search(np.ascontiguousarray(queries[meant]), most, exact)
        for i, (cosines, sequences) in zip(meant, nearest, strict=True):
            best = slice(nearest_needed(searches[i]))
            if i in worded:
                found[i] = by_both(searches[i], snapshot, queries[i], sequences[best], worded[i])
            else:
                found[i] = by_meaning(searches[i], cosines[best], sequences[best])
    for i in positions:
        if searches[i].mode == SearchMode.KEYWORD:
            found[i] = by_keywords(searches[i], snapshot, queries[i], worded[i])
