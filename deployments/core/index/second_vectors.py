"""The vectors of a second model: made from the stored texts, and put in the place of the others."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from time import monotonic

from deployments.core.encoding.batcher import Encoded
from deployments.core.encoding.text_encoder import TextKind
from deployments.core.index import overlap
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.index.standby_collections import StandbyCollections
from deployments.core.search.one_commit import Snapshots
from deployments.core.segments import EmbeddingType, ModelIdentity, Models
from deployments.core.storage import standby
from deployments.core.storage.migration_record import Overlap
from deployments.core.storage.operations import Maintenance
from deployments.core.storage.own_vector_check import cannot_be_migrated
from deployments.core.storage.segment_writes import unit_vectors
from deployments.core.storage.standby import Lacking, StandbyVector
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage.store_writer import StoreWriter
from deployments.core.vectors.collection import Collections, Snapshot

BATCH_ROWS = 256
FEW_ROWS = 32
"""Writes wait while so many are encoded at the end."""
PATIENCE_S = 20.0
"""So long there are tries; if there never are so few left, with more and more, up to a batch."""
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
        self._collections = StandbyCollections(index)

    def models(self) -> Models:
        """Those of the standby vectors; empty if there are none."""
        return self._index.read(lambda reader, _: standby.models(reader))

    def forget(self) -> None:
        """Look at the store anew: others are on standby now."""
        self._done_to = 0
        self._collections.drop()

    def rest(self) -> None:
        """Free the memory of what was read for an exchange that doesn't come."""
        self._collections.drop()

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
        if rows:
            vectors = self._encoded(rows, target)
            self._apply(Maintenance(lambda writer: _add(writer, target, rows, vectors)))
        are_more = len(rows) == BATCH_ROWS
        self._done_to = rows[-1].sequence if are_more else last
        return are_more

    def exchange(self, note: Callable[[StoreWriter], None]) -> bool:
        """Let the standby vectors and the others change places, in one transaction with `note`.

        What is written while the others are read and encoded is caught up with in rounds, each of
        which has only to do what came during the one before. False if that led nowhere, because
        segments are written about as fast as they are encoded.
        """
        began: float | None = None
        while True:
            self._catch_up_round()
            self._collections.up_to(self._done_to)
            # Only from here on: the first time, this takes as long as there are vectors.
            began = monotonic() if began is None else began
            waited_s = monotonic() - began
            is_last = waited_s >= PATIENCE_S
            share = 1.0 if is_last else waited_s / PATIENCE_S
            if self._exchange_with(max(FEW_ROWS, int(share * BATCH_ROWS)), note):
                return True
            if is_last:
                return False

    def _catch_up_round(self) -> None:
        """Give the segments that are there now their second vector, not those that come then."""
        until = self._index.read(lambda reader, _: reader.last_sequence())
        while self._done_to < until:
            self.catch_up()

    def _exchange_with(self, most: int, note: Callable[[StoreWriter], None]) -> bool:
        """Exchange the vectors, unless more than `most` are lacking."""

        def lacking(reader: StoreReader) -> list[Lacking]:
            rows = standby.lacking(reader, self._done_to, most + 1)
            if len(rows) > most:
                raise _TooManyRows
            return rows

        def exchange(writer: StoreWriter) -> Collections:
            target, rows = standby.models(writer), lacking(writer)
            _add(writer, target, rows, self._encoded(rows, target))
            standby.exchange(writer)
            note(writer)
            return self._collections.exchanged(writer)

        try:
            self._index.read(lambda reader, _: lacking(reader))
            self._index.exchange(exchange)
        except _TooManyRows:
            return False
        return True

    def overlap(self) -> dict[EmbeddingType, Overlap]:
        """How alike both models answer, asked with some of the stored texts."""
        target, collections = self.models(), self._collections.up_to(self._done_to)
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
        changing = standby.changing(self._index.models, target)
        for row in rows:
            if row.embedding_type in changing:
                if row.is_own:
                    raise cannot_be_migrated(row.embedding_type, 1)
                by_model[target[row.embedding_type]].append(row)
        found = []
        for model, of_model in by_model.items():
            encoded = self._encode(model, [row.text for row in of_model], "document")
            unit = unit_vectors(encoded.vectors, model.dimension).astype("<f4", copy=False)
            for row, vector, truncated in zip(of_model, unit, encoded.truncated, strict=True):
                found.append(StandbyVector(row.sequence, vector.tobytes(), truncated))
        return found


class _TooManyRows(Exception):
    """So many that writes would wait too long until they are encoded."""


def _add(
    writer: StoreWriter, target: Models, rows: Sequence[Lacking], vectors: Sequence[StandbyVector]
) -> int:
    """Keep the vectors, and for the other rows those that they have."""
    encoded = {one.sequence for one in vectors}
    rest = [row.sequence for row in rows if row.sequence not in encoded]
    return standby.add(writer, target, vectors) + standby.copy(writer, target, rest)
