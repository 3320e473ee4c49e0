"""The vectors of a second model: made from the stored texts, and put in the place of the others."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from deployments.core.encoding.batcher import Encoded
from deployments.core.encoding.text_encoder import TextKind
from deployments.core.errors import InvalidInput, NotReady, StoreDamaged, StoreError
from deployments.core.index import overlap, recovery
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.search.one_commit import Snapshots
from deployments.core.segments import EmbeddingType, ModelIdentity, Models
from deployments.core.storage import standby
from deployments.core.storage.migration_record import Overlap
from deployments.core.storage.operations import Maintenance
from deployments.core.storage.segment_writes import unit_vectors
from deployments.core.storage.standby import Lacking, StandbyReader, StandbyVector
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage.store_writer import StoreWriter
from deployments.core.vectors.collection import Collections, Snapshot, empty_collections

BATCH_ROWS = 256
MOST_ROWS_AT_EXCHANGE = 512
"""Writes wait while so many are encoded at the end."""
SAMPLED_QUERIES = 100

Encode = Callable[[ModelIdentity, Sequence[str], TextKind], Encoded]
"""Encodes texts with a model, or raises a ServiceError."""
Apply = Callable[[Maintenance], int]
"""Makes a durable change as SegmentIndex.apply does, or raises a ServiceError."""


class SecondVectors:
    """The standby vectors of an index; used by one thread at a time.

    Each method raises StoreError, NotReady, and what `apply` and `encode` raise.
    """

    def __init__(self, index: SegmentIndex, apply: Apply, encode: Encode) -> None:
        self._index = index
        self._apply = apply
        self._encode = encode
        self._done_to = 0
        """Every row up to this one has a standby vector."""
        self._prepared: Collections | None = None

    def models(self) -> Models:
        """Those of the standby vectors; empty if there are none."""
        return self._index.read(lambda reader, _: standby.models(reader))

    def forget(self) -> None:
        """Look at the store anew: others are on standby now."""
        self._done_to, self._prepared = 0, None

    def rest(self) -> None:
        """Free the memory of what was read for an exchange that doesn't come."""
        self._prepared = None

    def catch_up(self) -> bool:
        """Give the next segments their second vector; whether there surely are more.

        While others write without a pause there are always some more, but only a few.
        """
        target, after = self.models(), self._done_to
        rows, last = self._index.read(
            lambda reader, _: (
                standby.lacking(reader, after, BATCH_ROWS),
                reader.last_sequence(),
            )
        )
        if not rows:
            self._done_to = last
            return False
        vectors = self._encoded(rows, target)
        self._apply(Maintenance(lambda writer: _add(writer, target, rows, vectors)))
        self._done_to = rows[-1].sequence
        return len(rows) == BATCH_ROWS

    def exchange(self, note: Callable[[StoreWriter], None]) -> None:
        """Let the standby vectors and the others change places, in one transaction with `note`.

        Raises NotReady if too many segments were written since the last `catch_up`.
        """
        collections = self._prepare()
        # If it fails, they may have rows that the store doesn't have.
        self._prepared = None

        def exchange(writer: StoreWriter) -> Collections:
            target = standby.models(writer)
            rows = standby.lacking(writer, self._done_to, MOST_ROWS_AT_EXCHANGE + 1)
            if len(rows) > MOST_ROWS_AT_EXCHANGE:
                raise NotReady("too many segments were written a moment ago; trying again")
            _add(writer, target, rows, self._encoded(rows, target))
            standby.exchange(writer)
            note(writer)
            with _of_standby():
                for kind, collection in collections.items():
                    recovery.catch_up(writer, kind, collection, target[kind].dimension)
            return collections

        self._index.exchange(exchange)

    def overlap(self) -> dict[EmbeddingType, Overlap]:
        """How alike both models answer, asked with some of the stored texts."""
        target, collections = self.models(), self._prepare()
        found = {}
        for kind, collection in collections.items():
            new, old, texts = self._sample(kind, collection.snapshot)
            if texts:
                of_model = [
                    overlap.nearest(
                        snapshot,
                        self._encode(model, list(texts.values()), "query").vectors,
                        list(texts),
                    )
                    for snapshot, model in ((old, self._index.models[kind]), (new, target[kind]))
                ]
                found[kind] = Overlap(len(texts), overlap.mean_overlap(*of_model))
        return found

    def _sample(
        self, kind: EmbeddingType, new: Snapshot
    ) -> tuple[Snapshot, Snapshot, dict[int, str]]:
        """Both snapshots with the rows that are in both, and the texts of some of them."""

        def sample(
            reader: StoreReader, snapshots: Snapshots
        ) -> tuple[Snapshot, Snapshot, dict[int, str]]:
            rows = snapshots[kind].live_among(new.live_sequences())
            chosen = random.Random(0).sample(rows.tolist(), min(SAMPLED_QUERIES, len(rows)))
            texts = {seq: row[4] for seq, row in reader.rows(chosen).items() if row[4].strip()}
            return new.restricted_to(rows), snapshots[kind].restricted_to(rows), texts

        return self._index.read(sample)

    def _encoded(self, rows: Sequence[Lacking], target: Models) -> list[StandbyVector]:
        """Vectors for the segments whose model becomes another one."""
        by_model: dict[ModelIdentity, list[Lacking]] = defaultdict(list)
        for row in rows:
            if row.embedding_type in self.changing(target):
                if row.is_own:
                    raise InvalidInput(own_vectors(row.embedding_type, 1))
                by_model[target[row.embedding_type]].append(row)
        found = []
        for model, of_model in by_model.items():
            encoded = self._encode(model, [row.text for row in of_model], "document")
            unit = unit_vectors(encoded.vectors, model.dimension).astype("<f4", copy=False)
            for row, vector, truncated in zip(of_model, unit, encoded.truncated, strict=True):
                found.append(StandbyVector(row.sequence, vector.tobytes(), truncated))
        return found

    def changing(self, target: Models) -> list[EmbeddingType]:
        """The types whose model becomes another one."""
        present = self._index.models
        return [kind for kind in EmbeddingType if not target[kind].makes_the_same_as(present[kind])]

    def _prepare(self) -> Collections:
        """The standby vectors as they will be searched."""
        if self._prepared is not None:
            return self._prepared

        def build(reader: StoreReader, _: Snapshots) -> Collections | StoreDamaged:
            target = standby.models(reader)
            collections = empty_collections({kind: target[kind] for kind in self.changing(target)})
            try:
                for kind, collection in collections.items():
                    rows = reader.sequences(kind)
                    rows = rows[rows <= self._done_to]
                    collection.reserve(len(rows))
                    recovery.add_from_store(
                        StandbyReader(reader.connection),
                        kind,
                        collection,
                        rows,
                        target[kind].dimension,
                    )
            except StoreDamaged as error:
                return error  # not of what is searched, which stays as good as it is
            return collections

        collections = self._index.read(build)
        if isinstance(collections, StoreDamaged):
            raise _unusable(collections) from collections
        self._prepared = collections
        return collections


def own_vectors(kind: EmbeddingType, count: int) -> str:
    """Why a type can't be migrated, for people."""
    return (
        f"the {kind} index has {count} segments whose vectors came with them or are those of "
        "images, which can't be made from the text; migrate the other types only, or delete these "
        "segments and send them again afterwards"
    )


def _add(
    writer: StoreWriter, target: Models, rows: Sequence[Lacking], vectors: Sequence[StandbyVector]
) -> int:
    """Keep the vectors, and for the other rows those that they have."""
    encoded = {one.sequence for one in vectors}
    rest = [row.sequence for row in rows if row.sequence not in encoded]
    return standby.add(writer, target, vectors) + standby.copy(writer, target, rest)


@contextmanager
def _of_standby() -> Iterator[None]:
    try:
        yield
    except StoreDamaged as error:
        raise _unusable(error) from error


def _unusable(error: StoreDamaged) -> StoreError:
    return StoreError(
        f"The vectors of the other model can't be used: {error.detail} What is searched isn't "
        "concerned. End the migration, and start it again."
    )
