"""What can be asked of an open index."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from deployments.core.errors import InvalidInput, NotFound, OtherModel, ServiceError
from deployments.core.search.answers import Answer
from deployments.core.search.cursors import FIRST
from deployments.core.search.filtered_rows import FilteredRows
from deployments.core.search.hydration import answers
from deployments.core.search.keyword_index import KeywordIndexes
from deployments.core.search.media_lists import (
    MediaList,
    MediaPage,
    SegmentList,
    SegmentPage,
    media_page,
    segment_page,
)
from deployments.core.search.media_orders import MediaOrders
from deployments.core.search.moment_reads import FoundMoments, MomentReads
from deployments.core.search.one_commit import OneCommit, Snapshots
from deployments.core.search.row_search import check_searches, find_rows
from deployments.core.segments import EmbeddingType, MomentSearch, Queries, Search, SegmentName
from deployments.core.storage.segment_rows import key_of
from deployments.core.storage.store_reader import StoreReader

T = TypeVar("T")


class _OfModels:
    """An index that is read only while its vectors are of certain models."""

    def __init__(self, index: OneCommit, fingerprints: Mapping[EmbeddingType, str]) -> None:
        self._index = index
        self._fingerprints = fingerprints

    def read(self, work: Callable[[StoreReader, Snapshots], T]) -> T:
        def checked(reader: StoreReader, snapshots: Snapshots) -> T:
            for kind, fingerprint in self._fingerprints.items():
                if snapshots[kind].fingerprint != fingerprint:
                    raise OtherModel(f"the {kind} index has vectors of another model by now")
            return work(reader, snapshots)

        return self._index.read(checked)


class IndexReads:
    """Searches and lists of an index, each in the state of one commit; safe in any thread.

    All raise StoreError and NotReady.
    """

    def __init__(self, index: OneCommit) -> None:
        self._index = index
        self._keywords = KeywordIndexes()
        self._filters = FilteredRows()
        self._orders = MediaOrders()

    def comparing(self, fingerprints: Mapping[EmbeddingType, str]) -> "IndexReads":
        """The same, for queries that models with these fingerprints made.

        Where an index has vectors of another model when it is searched, OtherModel is raised.
        """
        reads = copy.copy(self)
        reads._index = _OfModels(self._index, fingerprints)
        return reads

    def answer(
        self, searches: Sequence[Search], queries: Queries, until: float = math.inf
    ) -> list[Answer]:
        """For each search its best hits by its mode, ties by sequence number.

        `queries[i]`, float32 of unit length and of the dimension of the type's model, belongs to
        `searches[i]`. A hit's cosine, clamped to 0…1, is at least the search's `min_similarity`.
        All searches see the same state. An answer's failure is DeadlineExceeded if the filter isn't
        evaluated at `until`, in seconds of `time.monotonic`. Raises InvalidInput.
        """
        if not searches:
            return []

        def find(reader: StoreReader, snapshots: Snapshots) -> list[Answer]:
            checked = check_searches(searches, queries, snapshots)
            found = find_rows(
                reader, snapshots, searches, checked, self._keywords, self._filters, until
            )
            return answers(reader, snapshots, searches, found)

        return self._index.read(find)

    def similar(self, name: SegmentName, search: Search, until: float = math.inf) -> Answer:
        """As `answer`, for the vector of a stored segment, which isn't among the hits itself.

        `search` is of the segment's type. Raises InvalidInput, also for a cursor from before the
        segment was stored anew, and NotFound for the segment.
        """

        def find(reader: StoreReader, snapshots: Snapshots) -> Answer:
            kind = name.embedding_type
            rows = reader.rows_of_media(kind, key_of(name.media_item_id))
            sequence = rows.get(key_of(name.segment_id))
            if sequence is None:
                raise NotFound(
                    f"media item {name.media_item_id!r} has no {kind} segment {name.segment_id!r}"
                )
            after = None if search.shape is None else search.shape.after
            if after is not None and sequence > after.as_of:
                raise InvalidInput(
                    f"segment {name.segment_id!r} of media item {name.media_item_id!r} was stored "
                    f"anew since the first page; send the cursor {FIRST!r} to begin again"
                )
            vectors = snapshots[kind].vectors_of(np.array([sequence], np.int64))
            queries = check_searches([search], list(vectors), snapshots)
            others = {**snapshots, kind: snapshots[kind].without(sequence)}
            found = find_rows(
                reader, others, [search], queries, self._keywords, self._filters, until
            )
            return answers(reader, snapshots, [search], found)[0]

        return self._index.read(find)

    def moments(
        self, searches: Sequence[MomentSearch], queries: Queries, until: float = math.inf
    ) -> list[FoundMoments | ServiceError]:
        """For each search its best moments; see MomentReads.find. All see the same state."""
        if not searches:
            return []
        return self._index.read(
            lambda reader, snapshots: MomentReads(
                reader, snapshots, self._keywords, self._filters, self._orders, until
            ).find(searches, queries)
        )

    def media(self, wanted: MediaList) -> MediaPage:
        """A page of the media items that have segments."""
        return self._index.read(lambda reader, _: media_page(reader, wanted))

    def segments(self, wanted: SegmentList) -> SegmentPage:
        """A page of a media item's segments. Raises NotFound if it has none at all."""
        return self._index.read(lambda reader, snapshots: segment_page(reader, snapshots, wanted))
