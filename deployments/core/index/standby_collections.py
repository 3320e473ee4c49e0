"""The standby vectors in memory, as they will be searched after an exchange."""

from deployments.core.errors import StoreDamaged, StoreError
from deployments.core.index import recovery
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.search.one_commit import Snapshots
from deployments.core.storage import standby
from deployments.core.storage.standby import StandbyReader
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage.store_writer import StoreWriter
from deployments.core.vectors.collection import Collection, Collections, empty_collections

_HEADROOM = 1.25
"""For what is written while the others are read. Room that isn't used takes no memory."""


class StandbyCollections:
    """A collection for each type whose model becomes another one; used by one thread at a time."""

    def __init__(self, index: SegmentIndex) -> None:
        self._index = index
        self._collections: Collections | None = None

    def drop(self) -> None:
        """Free their memory."""
        self._collections = None

    def up_to(self, sequence: int) -> Collections:
        """They with every row up to this one, all of which need a standby vector.

        The first call reads them all, which may take seconds, a later one those that are new; rows
        that were deleted between the calls are still in them. Raises StoreError.
        """

        def read(reader: StoreReader, _: Snapshots) -> Collections | StoreDamaged:
            target = standby.models(reader)
            collections = self._collections
            if collections is None:
                changing = standby.changing(self._index.models, target)
                collections = empty_collections({kind: target[kind] for kind in changing})
            of_standby = StandbyReader(reader.connection)
            try:
                for kind, collection in collections.items():
                    if after := _last(collection):
                        rows = of_standby.sequences_between(kind, after, sequence)
                    else:
                        rows = reader.sequences(kind)
                        rows = rows[rows <= sequence]
                        collection.reserve(int(len(rows) * _HEADROOM))
                    recovery.add_from_store(
                        of_standby, kind, collection, rows, target[kind].dimension
                    )
            except StoreDamaged as error:
                return error  # not of what is searched, which stays as good as it is
            return collections

        collections = self._index.read(read)
        if isinstance(collections, StoreDamaged):
            self.drop()
            raise _unusable(collections) from collections
        self._collections = collections
        return collections

    def exchanged(self, writer: StoreWriter) -> Collections:
        """They with exactly the rows of the store, where the vectors have changed places.

        They are forgotten here: if the transaction fails, they have rows that the store lacks.
        Raises StoreError.
        """
        assert self._collections is not None, "up_to comes first"
        collections, self._collections = self._collections, None
        models = writer.models()
        try:
            for kind, collection in collections.items():
                recovery.catch_up(writer, kind, collection, models[kind].dimension)
        except StoreDamaged as error:
            raise _unusable(error) from error
        return collections


def _last(collection: Collection) -> int:
    sequences = collection.snapshot.sequences
    return int(sequences[-1]) if len(sequences) else 0


def _unusable(error: StoreDamaged) -> StoreError:
    return StoreError(
        f"The vectors of the other model can't be used: {error.detail} What is searched isn't "
        "concerned. End the migration, and start it again."
    )
