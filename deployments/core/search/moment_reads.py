"""Searches for moments: the hits in all indices, and what is said around them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from deployments.core.errors import ServiceError
from deployments.core.search.filtered_rows import FilteredRows
from deployments.core.search.hydration import answers, segments_of
from deployments.core.search.keyword_index import KeywordIndexes
from deployments.core.search.media_orders import MediaOrders
from deployments.core.search.moments import SCALE_DEPTH, Moment, Seconds, Span, find_moments
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
    ) -> list[list[FoundMoment] | ServiceError]:
        """The moments of each search, best first, or why it couldn't be carried out.

        `queries` has one for each of the `embedding_types` of each search, float32 of unit length
        and of the dimension of the type's model. Raises InvalidInput and StoreDamaged.
        """
        searches = [_search(each, kind) for each in wanted for kind in each.embedding_types]
        checked = check_searches(searches, queries, self.snapshots)
        rows = find_rows(
            self.reader,
            self.snapshots,
            searches,
            checked,
            self.keywords,
            self.filters,
            self.until,
        )
        told = iter(answers(self.reader, self.snapshots, searches, rows))
        rest = iter(checked)
        found: list[list[FoundMoment] | ServiceError] = []
        for each in wanted:
            weights = dict(each.weights)
            by_type = {kind: next(told) for kind in weights}
            compared = {kind: next(rest) for kind in weights}
            failure = next((one.failure for one in by_type.values() if one.failure), None)
            if failure is not None:
                found.append(failure)
                continue
            hits = {kind: one.hits for kind, one in by_type.items()}
            near = {
                kind: self._nearness(kind, of, compared[kind], each.mode)
                for kind, of in hits.items()
            }
            moments = find_moments(hits, near, weights, each.mode, each.top_k)
            found.append([FoundMoment(one, self._context(one, each.context)) for one in moments])
        return found

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


def _overlap(one: Span, other: Span) -> bool:
    """Whether two stretches of time have more in common than an end, or one lasts no time."""
    first, last = max(one[0], other[0]), min(one[1], other[1])
    return first < last or (first == last and (one[0] == one[1] or other[0] == other[1]))
