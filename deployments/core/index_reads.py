"""What is read of an open index, each time of one commit: searches, and checks of everything."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from deployments.core.answers import Answer
from deployments.core.collection import Snapshot
from deployments.core.filtered_rows import FilteredRows
from deployments.core.hydration import answers
from deployments.core.keyword_index import KeywordIndexes, Overtaken
from deployments.core.published_state import PublishedState, State
from deployments.core.row_search import check_searches, find_rows
from deployments.core.segments import EmbeddingType, Search, Vectors
from deployments.core.store import Store
from deployments.core.store_sql import StoreReader

_PUBLISH_TIMEOUT_S = 5.0

T = TypeVar("T")


class IndexReads:
    """Reads the store together with the vectors that belong to it; safe in any thread."""

    def __init__(self, store: Store, published: PublishedState, dimension: int) -> None:
        self._store = store
        self._published = published
        self._dimension = dimension
        self._keywords = KeywordIndexes()
        self._filters = FilteredRows()

    def at_one_commit(self, read: Callable[[StoreReader, State], T]) -> T:
        """What `read` returns for the store and the published state of the same commit.

        It is called again if another thread has read a later commit meanwhile.
        """
        while True:
            with self._store.reading() as reader:
                state = self._published.at(reader.commit_id(), _PUBLISH_TIMEOUT_S)
                if state is not None:
                    with suppress(Overtaken):
                        return read(reader, state)

    def answer(self, searches: Sequence[Search], queries: Vectors) -> list[Answer]:
        """For each search its best hits by its mode, ties by sequence number.

        `queries[i]`, of shape (len(searches), dimension) float32 and unit length, belongs to
        `searches[i]`. A hit's cosine, clamped to 0…1, is at least the search's `min_similarity`.
        All searches see the same state. Raises InvalidInput, StoreError, or NotReady.
        """
        if not searches:
            return []
        queries = check_searches(searches, queries, self._dimension)
        return self.at_one_commit(
            lambda reader, state: answer(
                reader, state.snapshots, searches, queries, self._keywords, self._filters
            )
        )


def answer(
    reader: StoreReader,
    snapshots: Mapping[EmbeddingType, Snapshot],
    searches: Sequence[Search],
    queries: Vectors,
    keywords: KeywordIndexes,
    filters: FilteredRows,
) -> list[Answer]:
    """Answer searches that were checked; `reader` and `snapshots` are of the same commit.

    Raises StoreDamaged, and Overtaken.
    """
    found = find_rows(reader, snapshots, searches, queries, keywords, filters)
    return answers(reader, snapshots, searches, found)
