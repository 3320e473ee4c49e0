"""Storing many segments whose vectors are known already, in few transactions."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from deployments.core.errors import InvalidInput, ServiceError
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, Id, Segment, Upsert, UpsertResult, Vectors
from deployments.core.storage.segment_rows import key_of

_ROWS_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class Record:
    """A segment with its place and its vector, shape (dimension,), float32, of unit length."""

    embedding_type: EmbeddingType
    media_item_id: Id
    segment: Segment
    vector: Vectors
    truncated: bool = False
    own: bool = False
    """Whether the vector isn't that of the text."""

    def to_store(self) -> Segment:
        """The segment, with its vector if that is its own."""
        if not self.own:
            return self.segment
        return replace(self.segment, embedding=self.vector.astype("<f4", copy=False).tobytes())


@dataclass(slots=True)
class Stored:
    """How many records were stored, and how many of them weren't stored so before."""

    records: int = 0
    changed: int = 0


def store_records(index: SegmentIndex, records: Iterable[Record]) -> Stored:
    """Store records in their order, some thousand in a transaction; the later of two with the
    same ids wins. A segment that is stored with the same text keeps the vector that it has.

    Raises InvalidInput that names the record, counted from 1; those before it may be stored
    then, and storing all again is harmless. Raises StoreError as SegmentIndex.apply.
    """
    stored = Stored()
    for batch in batches(records, _ROWS_AT_ONCE):
        groups = list(_groups(batch))
        outcomes = index.apply([_upsert(group) for group in groups])
        for group, outcome in zip(groups, outcomes, strict=True):
            if isinstance(outcome, ServiceError):
                first, last = stored.records + 1, stored.records + len(group)
                where = f"record {first}" if first == last else f"records {first} to {last}"
                raise InvalidInput(
                    f"{where} ({group[0].embedding_type}, media item "
                    f"{group[0].media_item_id!r}): {outcome.detail}"
                )
            assert isinstance(outcome, UpsertResult)
            stored.records += len(group)
            stored.changed += outcome.changed
    return stored


def batches(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """The records in lists of `size`, the last one shorter."""
    batch: list[Record] = []
    for record in records:
        batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _groups(batch: list[Record]) -> Iterator[list[Record]]:
    """Neighbours of one media item and type: more would change the order of the rows."""
    group: list[Record] = []
    names: set[str] = set()
    place = None
    for record in batch:
        # 1 and "1" are one media item, but come back in the form that was stored.
        here = (record.embedding_type, type(record.media_item_id), record.media_item_id)
        name = key_of(record.segment.id)
        if group and (here != place or name in names):
            yield group
            group, names = [], set()
        place = here
        group.append(record)
        names.add(name)
    if group:
        yield group


def _upsert(group: list[Record]) -> Upsert:
    return Upsert(
        group[0].embedding_type,
        group[0].media_item_id,
        tuple(record.to_store() for record in group),
        vectors=np.stack([record.vector for record in group]),
        vector_positions=tuple(range(len(group))),
        truncated_positions=tuple(
            position for position, record in enumerate(group) if record.truncated
        ),
    )
