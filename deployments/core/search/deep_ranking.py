"""Rankings of all rows, as deep as they are needed: exact, and in every mode by one order.

The order is by score, ties by sequence number. In hybrid search the standard scores are among the
best of each part, as in `ranking.by_both`; any other row is measured on the same scale.
"""

from typing import Protocol

import numpy as np

from deployments.core.search.fusion import DEPTH, Scale
from deployments.core.search.keyword_index import KeywordScores
from deployments.core.search.ranking import Candidates, Ranked, worded
from deployments.core.segments import Explanation, Part, Search, SearchMode, Vectors
from deployments.core.vectors.collection import Snapshot
from deployments.core.vectors.exact_search import Scores, cosines_of, error_bound, scored
from deployments.core.vectors.main_part import Sequences

_RESCORED_ROWS = 8192


class DeepRanking(Protocol):
    """The rows of a snapshot for one query."""

    def best(self, count: int) -> list[Ranked]:
        """The `count` best rows, best first; fewer only if there are no more."""
        ...

    def of(self, sequences: Sequences) -> list[Ranked]:
        """Those of these rows, which are in the snapshot, that the search finds; best first."""
        ...


def deep_ranking(
    search: Search, snapshot: Snapshot, query: Vectors, keywords: KeywordScores | None
) -> DeepRanking:
    """The ranking of a snapshot's rows by a search's mode.

    `keywords` are the scores of the snapshot's rows that aren't deleted, where words count.
    """
    if keywords is None:
        return _ByMeaning(snapshot, query, search.explain)
    if search.mode == SearchMode.KEYWORD:
        return _ByKeywords(snapshot, query, keywords, search.explain)
    return _ByBoth(snapshot, query, keywords, search.explain)


class _ByMeaning:
    def __init__(self, snapshot: Snapshot, query: Vectors, explain: bool) -> None:
        self._snapshot = snapshot
        self._query = query
        self._explain = explain

    def best(self, count: int) -> list[Ranked]:
        ((cosines, sequences),) = self._snapshot.search(self._query[None], count, exact=True)
        return [
            self._ranked(cosine, seq, rank)
            for rank, (cosine, seq) in enumerate(
                zip(cosines.tolist(), sequences.tolist(), strict=True), 1
            )
        ]

    def of(self, sequences: Sequences) -> list[Ranked]:
        cosines = _cosines(self._snapshot, sequences, self._query)
        order = np.lexsort((sequences, -cosines))
        return [self._ranked(float(cosines[i]), int(sequences[i]), None) for i in order.tolist()]

    def _ranked(self, cosine: float, sequence: int, rank: int | None) -> Ranked:
        told = Explanation(Part(rank, cosine)) if self._explain else None
        return Ranked(cosine, sequence, None, told)


class _ByKeywords:
    def __init__(
        self, snapshot: Snapshot, query: Vectors, keywords: KeywordScores, explain: bool
    ) -> None:
        self._snapshot = snapshot
        self._query = query
        self._keywords = keywords
        self._explain = explain

    def best(self, count: int) -> list[Ranked]:
        return self._ranked(self._keywords.best(count), ranks=True)

    def of(self, sequences: Sequences) -> list[Ranked]:
        among = self._keywords.among(np.sort(sequences))
        return self._ranked(among.best(len(sequences)), ranks=False)

    def _ranked(self, sequences: Sequences, ranks: bool) -> list[Ranked]:
        cosines = _cosines(self._snapshot, sequences, self._query)
        bm25 = self._keywords.of(sequences)
        return worded(sequences, cosines, bm25, explain=self._explain, ranks=ranks)


class _ByBoth:
    def __init__(
        self, snapshot: Snapshot, query: Vectors, keywords: KeywordScores, explain: bool
    ) -> None:
        self._snapshot = snapshot
        self._query = query
        self._keywords = keywords
        self._explain = explain
        ((_, nearest),) = snapshot.search(query[None], DEPTH, exact=True)
        self._candidates = Candidates(nearest, keywords.best(DEPTH))
        sequences = self._candidates.sequences
        self._scale = Scale.of(_cosines(snapshot, sequences, query), keywords.of(sequences))

    def best(self, count: int) -> list[Ranked]:
        (products,) = scored(self._snapshot.vectors, self._snapshot.dead, self._query[None])
        alive = np.delete(np.arange(len(products)), self._snapshot.dead)
        # As in exact_search: whatever may be among the best by rounded scores is scored anew.
        semantic, keyword = self._scale.parts(
            products[alive].astype(np.float64), self._keywords.scores
        )
        rough = semantic + keyword
        if len(rough) > count:
            slack = 2 * self._scale.semantic_slope * error_bound(self._query.shape[0]) + 1e-12
            least = np.partition(rough, len(rough) - count)[len(rough) - count]
            alive = alive[rough >= least - slack]
        return self.of(self._snapshot.sequences[alive])[:count]

    def of(self, sequences: Sequences) -> list[Ranked]:
        cosines = _cosines(self._snapshot, sequences, self._query)
        bm25 = self._keywords.of(sequences)
        return self._candidates.fused(sequences, cosines, bm25, self._scale, explain=self._explain)


def _cosines(snapshot: Snapshot, sequences: Sequences, query: Vectors) -> Scores:
    """Cosines of rows of a snapshot to a query, in the order of `sequences`."""
    blocks = [
        cosines_of(snapshot.vectors_of(sequences[start : start + _RESCORED_ROWS]), query)
        for start in range(0, len(sequences), _RESCORED_ROWS)
    ]
    return np.concatenate(blocks) if blocks else np.empty(0)
