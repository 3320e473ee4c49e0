"""Which rows a search finds, and in what order, by each mode."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from deployments.core.search.fusion import DEPTH, Scale
from deployments.core.search.keyword_index import KeywordScores
from deployments.core.segments import Explanation, Part, Search, SearchMode, Vectors
from deployments.core.vectors.collection import Snapshot
from deployments.core.vectors.exact_search import Scores, cosines_of
from deployments.core.vectors.main_part import Sequences

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
        chosen = _chosen(search, worded(sequences, cosines, scores, explain=search.explain))
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

    However many are wanted, the DEPTH best of each part make the scale, so that the first ones stay
    the same. Ties are ordered by sequence number.
    """
    matching = keywords.best(nearest_needed(search))
    candidates = Candidates(nearest, matching)
    cosines = cosines_of(snapshot.vectors_of(candidates.sequences), query)
    bm25 = keywords.of(candidates.sequences)
    measured = np.isin(candidates.sequences, np.union1d(nearest[:DEPTH], matching[:DEPTH]))
    scale = Scale.of(cosines[measured], bm25[measured])
    return _chosen(
        search,
        candidates.fused(candidates.sequences, cosines, bm25, scale, explain=search.explain),
    )


def worded(
    sequences: Sequences, cosines: Scores, bm25: Scores, *, explain: bool, ranks: bool = True
) -> list[Ranked]:
    """Rows in the order of their BM25 scores, which they have already.

    Without `ranks` the explanations don't tell them: the rows aren't the first ones.
    """
    found = []
    for rank, (seq, cosine, score) in enumerate(
        zip(sequences.tolist(), cosines.tolist(), bm25.tolist(), strict=True), 1
    ):
        told = None
        if explain:
            told = Explanation(Part(None, cosine), Part(rank if ranks else None, score))
        found.append(Ranked(cosine, seq, score, told))
    return found


class Candidates:
    """The rows whose scores make the scale of a hybrid search: the best of both parts.

    `sequences` are all of them, ascending.
    """

    def __init__(self, nearest: Sequences, worded: Sequences) -> None:
        self.sequences = np.union1d(nearest, worded)
        self._semantic_rank = {seq: rank for rank, seq in enumerate(nearest.tolist(), 1)}
        self._keyword_rank = {seq: rank for rank, seq in enumerate(worded.tolist(), 1)}

    def fused(
        self, sequences: Sequences, cosines: Scores, bm25: Scores, scale: Scale, *, explain: bool
    ) -> list[Ranked]:
        """Any rows by their fused scores, best first, ties by sequence number."""
        semantic, keyword = scale.parts(cosines, bm25)
        scores = semantic + keyword
        found = []
        for i in np.lexsort((sequences, -scores)).tolist():
            seq, cosine, score = int(sequences[i]), float(cosines[i]), float(scores[i])
            told = None
            if explain:
                told = Explanation(
                    Part(self._semantic_rank.get(seq), cosine, float(semantic[i])),
                    Part(self._keyword_rank.get(seq), float(bm25[i]), float(keyword[i])),
                    score,
                )
            found.append(Ranked(cosine, seq, score, told))
        return found


def _chosen(search: Search, ranked: Iterable[Ranked]) -> list[Ranked]:
    similar = [each for each in ranked if max(0.0, each.cosine) >= search.min_similarity]
    return similar[: search.top_k]
