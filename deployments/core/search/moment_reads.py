"""Searches for moments: the hits in all indices, and what is said around them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from deployments.core.errors import ServiceError
from deployments.core.search.answers import Answer
from deployments.core.search.filtered_rows import FilteredRows
from deployments.core.search.hydration import answers, segments_of
from deployments.core.search.keyword_index import KeywordIndexes
from deployments.core.search.media_orders import MediaOrders
from deployments.core.search.moment_strengths import SCALE_DEPTH, Evidence, evidence_of
from deployments.core.search.moments import (
    ALMOST_AS_WELL,
    Moment,
    Seconds,
    Span,
    find_moments,
)
from deployments.core.search.one_commit import Snapshots
from deployments.core.search.row_search import check_searches, find_rows
from deployments.core.search.surroundings import nearness
from deployments.core.segments import (
    EmbeddingType,
    Hit,
    MomentSearch,
    Queries,
    Search,
    SearchMode,
    Segment,
    Vector,
)
from deployments.core.storage.segment_rows import key_of
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage_errors import translated

HITS_PER_MOMENT = 5
DEEPER = 4
MOST_HITS = 25_600
"""Of a type: more aren't looked at, however few moments they are."""
MOST_HITS_FOR_TIMES = 1600
"""Of a type, where there are enough moments and only their times may be longer."""
MOST_DURING = 20


@dataclass(frozen=True, slots=True)
class Context:
    """Transcript segments that begin before a moment, during it and after it, by time."""

    before: list[Segment]
    during: list[Segment]
    after: list[Segment]


@dataclass(frozen=True, slots=True)
class FoundMoment:
    """A moment, and its context if that was asked for and the moment has times."""

    moment: Moment
    context: Context | None


@dataclass(frozen=True, slots=True)
class FoundMoments:
    """The moments that a search finds, best first; `exhausted` if there are no others."""

    moments: list[FoundMoment]
    exhausted: bool


@dataclass(frozen=True, slots=True)
class MomentReads:
    """Searches for moments in the state of one commit."""

    reader: StoreReader
    snapshots: Snapshots
    keywords: KeywordIndexes
    filters: FilteredRows
    orders: MediaOrders
    until: float
    """When filters have to be evaluated, in seconds of `time.monotonic`."""

    def find(
        self, wanted: Sequence[MomentSearch], queries: Queries
    ) -> list[FoundMoments | ServiceError]:
        """The moments of each search, or why it couldn't be carried out.

        `queries` has one for each of the `embedding_types` of each search, float32 of unit length
        and of the dimension of the type's model. Raises InvalidInput and StoreDamaged.
        """
        searches = [_search(each, kind) for each in wanted for kind in each.embedding_types]
        checked = iter(check_searches(searches, queries, self.snapshots))
        rest = iter(searches)
        asked = [
            _Asked(each, [next(rest) for _ in kinds], [next(checked) for _ in kinds])
            for each in wanted
            for kinds in [each.embedding_types]
        ]
        found: dict[int, FoundMoments | ServiceError] = {}
        while len(found) < len(asked):
            open_ = [i for i in range(len(asked)) if i not in found]
            told = iter(self._hits([asked[i] for i in open_]))
            for i in open_:
                answered = self._moments(asked[i], [next(told) for _ in asked[i].searches])
                if answered is not None:
                    found[i] = answered
                else:
                    asked[i] = asked[i].deeper()
        return [found[i] for i in range(len(asked))]

    def _hits(self, asked: Sequence["_Asked"]) -> list[Answer]:
        searches = [search for each in asked for search in each.searches]
        vectors = [query for each in asked for query in each.queries]
        rows = find_rows(
            self.reader,
            self.snapshots,
            searches,
            vectors,
            self.keywords,
            self.filters,
            self.until,
        )
        return answers(self.reader, self.snapshots, searches, rows)

    def _moments(
        self, asked: "_Asked", told: Sequence[Answer]
    ) -> FoundMoments | ServiceError | None:
        """The moments by these hits; None if more hits may make others of them."""
        failure = next((one.failure for one in told if one.failure), None)
        if failure is not None:
            return failure
        wanted, kinds = asked.wanted, asked.wanted.embedding_types
        hits = {kind: one.hits for kind, one in zip(kinds, told, strict=True)}
        near = {
            kind: self._nearness(kind, hits[kind], query, wanted.mode)
            for kind, query in zip(kinds, asked.queries, strict=True)
        }
        evidence = evidence_of(hits, near, dict(wanted.weights), wanted.mode)
        moments = find_moments(evidence, wanted.top_k)
        cut = [kind for kind in kinds if len(hits[kind]) == asked.depth]
        few = len(moments) < wanted.top_k
        most = MOST_HITS if few else MOST_HITS_FOR_TIMES
        if cut and asked.depth < most and (few or _may_go_on(moments, evidence, cut)):
            return None
        context = [FoundMoment(one, self._context(one, wanted.context)) for one in moments]
        return FoundMoments(context, few and not cut)

    def _nearness(
        self, kind: EmbeddingType, hits: Sequence[Hit], query: Vector, mode: SearchMode
    ) -> list[float]:
        if mode is SearchMode.KEYWORD or not hits:
            return [0.0] * len(hits)
        keys = dict.fromkeys(key_of(hit.media_item_id) for hit in hits)
        orders = {key: self.orders.of(self.reader, kind, key) for key in keys}
        order_of = {hit.sequence: orders[key_of(hit.media_item_id)] for hit in hits}
        sequences = np.array([hit.sequence for hit in hits], np.int64)
        (near,) = nearness(self.snapshots[kind], order_of, sequences, query[np.newaxis])
        return [float(value) for value in near]

    def _context(self, moment: Moment, count: int) -> Context | None:
        start, end = moment.start_time, moment.end_time
        if not count or start is None or end is None:
            return None
        before, during, after = [], [], []
        for first, last, sequence in self._said(key_of(moment.media_item_id)):
            if _overlap((first, last), (start, end)):
                during.append(sequence)
            elif first < start:
                before.append(sequence)
            else:
                after.append(sequence)
        parts = before[-count:], during[:MOST_DURING], after[:count]
        kind = EmbeddingType.TRANSCRIPT
        found = segments_of(self.reader, kind, self.snapshots[kind], sorted(chain(*parts)))
        return Context(*([found[sequence][1] for sequence in part] for part in parts))

    def _said(self, media_key: str) -> list[tuple[Seconds, Seconds, int]]:
        """Start, end and row of a media item's transcript segments that have times, by time."""
        with translated("Cannot read segments from the store"):
            return sorted(
                self.reader.connection.execute(
                    "SELECT coalesce(start_time, end_time), coalesce(end_time, start_time), seq "
                    "FROM segments INDEXED BY segments_by_name "
                    "WHERE embedding_type=? AND CAST(media_item_id AS TEXT)=? "
                    "AND coalesce(start_time, end_time) IS NOT NULL",
                    (EmbeddingType.TRANSCRIPT.value, media_key),
                )
            )


@dataclass(frozen=True, slots=True)
class _Asked:
    """A search for moments, with a search and its query for each of its types."""

    wanted: MomentSearch
    searches: Sequence[Search]
    queries: Sequence[Vector]

    @property
    def depth(self) -> int:
        """How many hits of each type are looked for."""
        return self.searches[0].top_k

    def deeper(self) -> "_Asked":
        """The same with more hits."""
        depth = min(MOST_HITS, DEEPER * self.depth)
        return replace(self, searches=[replace(each, top_k=depth) for each in self.searches])


def _search(wanted: MomentSearch, kind: EmbeddingType) -> Search:
    return Search(
        kind,
        max(SCALE_DEPTH, HITS_PER_MOMENT * wanted.top_k),
        wanted.min_similarity,
        mode=wanted.mode,
        text=wanted.text,
        explain=True,
        filter=wanted.filter,
    )


def _may_go_on(
    moments: Sequence[Moment], evidence: Sequence[Evidence], cut: Sequence[EmbeddingType]
) -> bool:
    """Whether hits of these types, which weren't all found, may match as well as moments do."""
    for kind in cut:
        least = min(each.match for each in evidence if each.embedding_type == kind)
        best = [one.evidence[0] for one in moments]
        if any(e.embedding_type == kind and least >= ALMOST_AS_WELL * e.match > 0 for e in best):
            return True
    return False


def _overlap(one: Span, other: Span) -> bool:
    """Whether two stretches of time have more in common than an end, or one lasts no time."""
    first, last = max(one[0], other[0]), min(one[1], other[1])
    return first < last or (first == last and (one[0] == one[1] or other[0] == other[1]))
