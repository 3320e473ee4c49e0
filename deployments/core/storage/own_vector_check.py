"""Segments whose vectors are no model's of their texts: where there can't be any of them.

While an index has vectors of two models, each segment needs both, made from its text.
"""

from deployments.core.errors import Conflict, InvalidInput
from deployments.core.segments import EmbeddingType
from deployments.core.storage import migration_record, standby
from deployments.core.storage.migration_record import Phase
from deployments.core.storage.segment_rows import HASH_BYTES
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage_errors import translated


def require_none(reader: StoreReader, kind: EmbeddingType) -> None:
    """Raises InvalidInput if a type has such segments, so that its model can't change."""
    with translated("Cannot read the store"):
        (count,) = reader.connection.execute(
            "SELECT count(*) FROM segments INDEXED BY segments_by_text "
            "WHERE embedding_type=? AND length(text_hash) > ?",
            (kind.value, HASH_BYTES),
        ).fetchone()
    if count:
        raise cannot_be_migrated(kind, count)


def cannot_be_migrated(kind: EmbeddingType, count: int) -> InvalidInput:
    """The error for so many such segments of a type whose model is to change."""
    return InvalidInput(
        f"the {kind} index has {count} segments whose vectors came with them or are those of "
        "images, which can't be made from the text; migrate the other types only, or delete these "
        "segments and send them again after the migration has ended"
    )


def refuse_during_migration(reader: StoreReader, kind: EmbeddingType) -> None:
    """Raises Conflict while the vectors of two models are kept for a type."""
    present, other = reader.models()[kind], standby.models(reader).get(kind)
    if other is None or other.makes_the_same_as(present):
        return
    record = migration_record.read(reader)
    new, advice = other, ""
    if record is not None and record.phase is Phase.SWITCHED:
        new, advice = present, f", after --rollback if it is to keep {other.name}"
    raise Conflict(
        f"a migration of the {kind} index to {new.name} is under way, and until it is ended each "
        "segment needs the vectors of both models, which are made from its text: a segment with "
        "an `embedding` or an image has none of the other model. End the migration "
        f"(`embeddings-service migrate --end`{advice}), or write to another index"
    )
