"""Which rows a search finds, and in what order, by each mode."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from deployments.core.collection import Snapshot
from deployments.core.exact_search import Scores, cosines_of
from deployments.core.fusion import DEPTH, Scale
from deployments.core.keyword_index import KeywordScores
from deployments.core.main_part import Sequences
from deployments.core.segments import Explanation, Part, Search, SearchMode, Vectors

_DEEPER = 4


@dataclass(frozen=True, slots=True)
class Ranked:
    """A row that a search found; see Hit."""

    cosine: float
    sequence: int
    score: float | None = None
    explanation: Explanation | None = None
    others: tuple["Ranked", ...] | None = None

    @property
    def key(self) -> tuple[float, int]:
        """What a ranking is sorted by, ascending."""
        return (-(self.cosine if self.score is None else self.score), self.sequence)


def nearest_needed(search: Search) -> int:
    """How many of the nearest rows a search has to know."""
    match search.mode:
        case SearchMode.SEMANTIC:
            return search.top_k
        case SearchMode.KEYWORD:
            return 0
    return max(DEPTH, search.top_k)


def by_meaning(search: Search, cosines: Scores, sequences: Sequences) -> list[Ranked]:
    """The nearest rows: `cosines` and `sequences` are theirs, best first."""
    return _chosen(
        search,
        (
            Ranked(cosine, seq, None, Explanation(Part(rank, cosine)) if search.explain else None)
            for rank, (cosine, seq) in enumerate(
                zip(cosines.tolist(), sequences.tolist(), strict=True), 1
            )
        ),
    )


def by_keywords(
    search: Search, snapshot: Snapshot, query: Vectors, keywords: KeywordScores
) -> list[Ranked]:
    """The rows with the highest BM25 score, ties by sequence number."""
    depth = max(DEPTH, search.top_k)
    while True:
        sequences = keywords.best(depth)
        cosines = cosines_of(snapshot.vectors_of(sequences), query)
        scores = keywords.of(sequences)
        found = []
        for rank, (seq, cosine, score) in enumerate(
            zip(sequences.tolist(), cosines.tolist(), scores.tolist(), strict=True), 1
        ):
            told = Explanation(Part(None, cosine), Part(rank, score)) if search.explain else None
            found.append(Ranked(cosine, seq, score, told))
        chosen = _chosen(search, found)
        if len(chosen) == search.top_k or len(sequences) < depth:
            return chosen
        depth *= _DEEPER


def by_both(
    search: Search,
    snapshot: Snapshot,
    query: Vectors,
    nearest: Sequences,
    keywords: KeywordScores,
) -> list[Ranked]:
    """The best of the rows that are among the nearest or have the highest BM25 scores.

    Ties are ordered by sequence number.
    """
    worded = keywords.best(nearest_needed(search))
    sequences = np.union1d(nearest, worded)
    cosines = cosines_of(snapshot.vectors_of(sequences), query)
    bm25 = keywords.of(sequences)
    semantic, keyword = Scale.of(cosines, bm25).parts(cosines, bm25)
    scores = semantic + keyword
    semantic_rank = {seq: rank for rank, seq in enumerate(nearest.tolist(), 1)}
    keyword_rank = {seq: rank for rank, seq in enumerate(worded.tolist(), 1)}
    found = []
    for i in np.argsort(-scores, kind="stable").tolist():
        seq, cosine = int(sequences[i]), float(cosines[i])
        explanation = None
        if search.explain:
            explanation = Explanation(
                Part(semantic_rank.get(seq), cosine, float(semantic[i])),
                Part(keyword_rank.get(seq), float(bm25[i]), float(keyword[i])),
                float(scores[i]),
            )
        found.append(Ranked(cosine, seq, float(scores[i]), explanation))
    return _chosen(search, found)


def _chosen(search: Search, ranked: Iterable[Ranked]) -> list[Ranked]:
    similar = [each for each in ranked if max(0.0, each.cosine) >= search.min_similarity]
    return similar[: search.top_k]
