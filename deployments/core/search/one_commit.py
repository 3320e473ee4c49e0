"""Reading the store together with the vectors that belong to it."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeVar

from deployments.core.search.keyword_index import Overtaken
from deployments.core.segments import EmbeddingType
from deployments.core.storage.store import Store
from deployments.core.storage.store_reader import StoreReader
from deployments.core.vectors.collection import Snapshot
from deployments.core.vectors.published_state import PublishedState, State

_PUBLISH_TIMEOUT_S = 5.0

T = TypeVar("T")
Snapshots = Mapping[EmbeddingType, Snapshot]


class OneCommit(Protocol):
    """What can be read of, each time in the state of one commit."""

    def read(self, work: Callable[[StoreReader, Snapshots], T]) -> T:
        """What `work` returns; it may be called several times."""
        ...


def at_one_commit(
    store: Store, published: PublishedState, work: Callable[[StoreReader, State], T]
) -> T:
    """What `work` returns for the store and the published state of the same commit.

    It is called again if another thread has read a later commit meanwhile.
    """
    while True:
        with store.reading() as reader:
            state = published.at(reader.commit_id(), _PUBLISH_TIMEOUT_S)
            if state is not None:
                with suppress(Overtaken):
                    return work(reader, state)
