"""How a segment becomes a row of the store and a row a segment again."""

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from deployments.core.errors import InvalidInput, StoreDamaged
from deployments.core.segments import Id, Segment

HASH_BYTES = 16
_MAX_DEPTH = 200
_INT64 = range(-(2**63), 2**63)
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A segment as the store keeps it, apart from its sequence number and vector."""

    media_item_id: Id
    segment_id: Id
    text: str
    start_time: float | int | None
    end_time: float | int | None
    metadata: str
    """JSON."""
    text_hash: bytes
    """Of the text; where the vector isn't the text's, followed by that of vector or image."""

    def same_as(self, other: "StoredRow") -> bool:
        """Whether storing this over `other` would change nothing, not even an id's form."""
        return (
            self.text_hash == other.text_hash
            and self.metadata == other.metadata
            and _identical(self.start_time, other.start_time)
            and _identical(self.end_time, other.end_time)
            and _identical(self.segment_id, other.segment_id)
            and _identical(self.media_item_id, other.media_item_id)
        )


@dataclass(frozen=True, slots=True)
class StoredRow:
    """What an upsert must know of a row that is there already."""

    sequence: int
    media_item_id: Id
    segment_id: Id
    start_time: float | int | None
    end_time: float | int | None
    metadata: str
    text_hash: bytes
    truncated: bool


def _identical(left: object, right: object) -> bool:
    return type(left) is type(right) and left == right


def key_of(name: Id) -> str:
    """The text under which an id is compared: 1 and "1" have the same."""
    return str(name)


def text_hash(text: str) -> bytes:
    """BLAKE2b of the text, 16 bytes."""
    return blake2b(text.encode(), digest_size=HASH_BYTES).digest()


def is_own(hashed: bytes) -> bool:
    """Whether the row with this `text_hash` has another vector than its text's."""
    return len(hashed) > HASH_BYTES


def row_of(media_item_id: Id, segment: Segment) -> SegmentRow:
    """The segment as a row. Raises InvalidInput for what can't be stored and given back exactly."""
    where = f"segment {segment.id!r}"
    segment_id = plain_id(segment.id, "segment id")
    if not isinstance(segment.text, str):
        raise InvalidInput(f"{where}: text is {type(segment.text).__name__}, expected a string.")
    start_time = _plain_time(f"{where}: start_time", segment.start_time)
    end_time = _plain_time(f"{where}: end_time", segment.end_time)
    metadata = _metadata_json(where, segment.metadata)
    try:
        hashed = text_hash(segment.text)
        if segment.embedding is not None:
            # Equal for an equal text and vector only, so that neither stands for the other's row,
            # nor for that of the same text with the model's vector.
            hashed += blake2b(segment.embedding, digest_size=HASH_BYTES).digest()
        elif segment.image_digest is not None:
            hashed += segment.image_digest
        metadata.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{where}: text or metadata has half of a surrogate pair, which is no Unicode text "
            f"({error.reason})."
        ) from error
    return SegmentRow(
        media_item_id, segment_id, segment.text, start_time, end_time, metadata, hashed
    )


def plain_id(name: object, what: str) -> Id:
    """`name` as str or int. Raises InvalidInput unless it is a string or an integer of 64 bits."""
    if isinstance(name, str):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"{what} {name!r} is not valid Unicode.") from error
        return str(name)
    if isinstance(name, bool) or not isinstance(name, int):
        raise InvalidInput(f"{what} is {name!r}, expected an integer or a string.")
    if name not in _INT64:
        raise InvalidInput(f"{what} {name} does not fit 64 bits; send it as a string.")
    return int(name)


def _plain_time(what: str, seconds: object) -> float | int | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidInput(f"{what} is {seconds!r}, expected seconds as a number.")
    if isinstance(seconds, int):
        if seconds not in _INT64:
            raise InvalidInput(f"{what} is {seconds}, which does not fit 64 bits.")
        return int(seconds)
    if not math.isfinite(seconds):
        raise InvalidInput(f"{what} is {seconds}, expected a finite number of seconds.")
    return float(seconds)


def _metadata_json(where: str, metadata: dict[str, Any]) -> str:
    if not metadata:
        return "{}"
    try:
        text = _JSON.encode(metadata)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{where}: metadata can't be stored as JSON: {error}.") from error
    if text.count("{") + text.count("[") > _MAX_DEPTH and _is_deeper(metadata, _MAX_DEPTH):
        raise InvalidInput(f"{where}: metadata is nested more than {_MAX_DEPTH} levels deep.")
    return text


def _is_deeper(value: Any, levels: int) -> bool:
    # What json can just write, it may not be able to read again from deeper in the stack.
    containers = [value]
    for _ in range(levels):
        inner: list[Any] = []
        for each in containers:
            inner.extend(each.values() if isinstance(each, dict) else each)
        containers = [each for each in inner if isinstance(each, dict | list | tuple)]
        if not containers:
            return False
    return True


def segment_from(sequence: int, fields: Sequence[Any]) -> Segment:
    """The segment from (segment_id, text, start_time, end_time, metadata) of a row."""
    segment_id, text, start_time, end_time, metadata = fields
    try:
        parsed = json.loads(metadata) if metadata != "{}" else {}
    except (ValueError, RecursionError) as error:
        raise StoreDamaged(f"The metadata of row {sequence} can't be read: {error}.") from error
    return Segment(segment_id, text, start_time, end_time, parsed)


def checksum(
    sequence: int, embedding_type: str, row: Sequence[Any], truncated: bool, vector: bytes
) -> bytes:
    """BLAKE2b (16 bytes) over all fields of a row and its vector.

    `row` is (media_item_id, segment_id, text, start_time, end_time, metadata, text_hash).
    """
    values = (sequence, embedding_type, *row, truncated, vector)
    return blake2b(b"".join(map(_tagged, values)), digest_size=HASH_BYTES).digest()


def _tagged(value: Any) -> bytes:
    # Type and length before each value, so that no two different rows have the same bytes. By
    # type and not isinstance, for speed: every row that a search finds is checked.
    kind = type(value)
    if kind is str:
        data = value.encode()
        return b"s%d:%b" % (len(data), data)
    if kind is bytes:
        return b"b%d:%b" % (len(value), value)
    if kind is float:
        return b"f" + struct.pack("<d", value)
    return b"n" if value is None else b"i%d:" % value
