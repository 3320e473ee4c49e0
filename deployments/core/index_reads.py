"""What can be asked of an open index."""

from collections.abc import Sequence

from deployments.core.answers import Answer
from deployments.core.filtered_rows import FilteredRows
from deployments.core.hydration import answers
from deployments.core.keyword_index import KeywordIndexes
from deployments.core.media_lists import (
    MediaList,
    MediaPage,
    SegmentList,
    SegmentPage,
    media_page,
    segment_page,
)
from deployments.core.moment_reads import FoundMoment, MomentReads
from deployments.core.one_commit import OneCommit, Snapshots
from deployments.core.row_search import check_searches, find_rows
from deployments.core.segments import MomentSearch, Search, Vectors
from deployments.core.store_sql import StoreReader


class IndexReads:
    """Searches and lists of an index, each in the state of one commit; safe in any thread.

    All raise StoreError and NotReady.
    """

    def __init__(self, index: OneCommit, dimension: int) -> None:
        self._index = index
        self._dimension = dimension
        self._keywords = KeywordIndexes()
        self._filters = FilteredRows()

    def answer(self, searches: Sequence[Search], queries: Vectors) -> list[Answer]:
        """For each search its best hits by its mode, ties by sequence number.

        `queries[i]`, of shape (len(searches), dimension) float32 and unit length, belongs to
        `searches[i]`. A hit's cosine, clamped to 0…1, is at least the search's `min_similarity`.
        All searches see the same state. Raises InvalidInput.
        """
        if not searches:
            return []
        queries = check_searches(searches, queries, self._dimension)

        def find(reader: StoreReader, snapshots: Snapshots) -> list[Answer]:
            found = find_rows(reader, snapshots, searches, queries, self._keywords, self._filters)
            return answers(reader, snapshots, searches, found)

        return self._index.read(find)

    def moments(
        self, searches: Sequence[MomentSearch], queries: Vectors
    ) -> list[list[FoundMoment]]:
        """For each search its best moments; see MomentReads.find. All see the same state."""
        if not searches:
            return []
        return self._index.read(
            lambda reader, snapshots: MomentReads(
                reader, snapshots, self._keywords, self._filters
            ).find(searches, queries, self._dimension)
        )

    def media(self, wanted: MediaList) -> MediaPage:
        """A page of the media items that have segments."""
        return self._index.read(lambda reader, _: media_page(reader, wanted))

    def segments(self, wanted: SegmentList) -> SegmentPage:
        """A page of a media item's segments. Raises NotFound if it has none at all."""
        return self._index.read(lambda reader, snapshots: segment_page(reader, snapshots, wanted))
