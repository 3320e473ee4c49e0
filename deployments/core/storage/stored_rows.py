"""Rows as they lie in the store, and the proof that they are what was written."""

from collections.abc import Sequence
from typing import Any

from deployments.core.storage.segment_rows import checksum

COLUMNS = (
    "seq, embedding_type, media_item_id, segment_id, text, start_time, end_time, metadata, "
    "text_hash, truncated, checksum"
)

Row = tuple[Any, ...]
"""The values of COLUMNS."""


def is_intact(row: Sequence[Any], vector: object) -> bool:
    """Whether row and vector (little-endian float32) are, bit for bit, what was stored together.

    Takes whatever a damaged file gives, and raises nothing for it.
    """
    sequence, embedding_type, *fields, truncated, mark = row
    if not isinstance(vector, bytes):
        return False
    try:
        return checksum(sequence, embedding_type, fields, bool(truncated), vector) == mark
    except (TypeError, ValueError):  # of a type, or with characters, that no stored row has
        return False


def name_of(row: Sequence[Any]) -> str:
    """What a message calls the row."""
    return f"Row {row[0]} ({row[1]}, media item {row[2]!r}, segment {row[3]!r})"
