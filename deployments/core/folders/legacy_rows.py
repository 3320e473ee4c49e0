"""From the old service's metadata to segments: which rows can be taken, and as what."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any

from deployments.core.errors import InvalidInput
from deployments.core.segments import EmbeddingType, Id, Segment
from deployments.core.storage.segment_rows import key_of, plain_id, row_of

_FIELDS = {"media_item_id", "segment_id", "start_time", "end_time", "text"}
_INT64 = range(-(2**63), 2**63)
_MAX_NESTING = 32
_MAX_VALUES = 10_000
_MAX_CHARS = 1_000_000


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that can't be imported."""

    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class LegacyRow:
    """A row as a segment; `position` is that of its vector among the index's rows."""

    row: int
    position: int
    media_item_id: Id
    segment: Segment


@dataclass(slots=True)
class LegacyRows:
    """The rows of one type."""

    taken: list[LegacyRow] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    without_metadata: int = 0
    duplicates: int = 0

    def refuse(self, reasons: Mapping[int, str]) -> None:
        """Move rows, by their numbers, from those taken to the bad ones."""
        self.bad.extend(BadRow(row, reason) for row, reason in reasons.items())
        self.taken = [each for each in self.taken if each.row not in reasons]

    def keep_last(self) -> None:
        """Of rows with the same media item and segment, keep the last."""
        last = {(key_of(each.media_item_id), key_of(each.segment.id)): each for each in self.taken}
        self.duplicates = len(self.taken) - len(last)
        self.taken = sorted(last.values(), key=lambda each: each.row)


def read_rows(
    kind: EmbeddingType, rows: Sequence[int], metadata: Mapping[int, Any], *, is_list: bool
) -> LegacyRows:
    """Sort the rows of an index, ascending, into those that can be taken and the others.

    A dict may lack rows, whose vectors the old service no longer found either: they only count.
    A list that is shorter than the index, and metadata without a vector, are bad: the two files
    are of different moments then.
    """
    found = LegacyRows()
    names = _given_names(metadata.values())
    for position, row in enumerate(rows):
        entry = metadata.get(row)
        if entry is None:
            if is_list and row not in metadata:
                found.bad.append(BadRow(row, "it has a vector but no metadata"))
            else:
                found.without_metadata += 1
            continue
        try:
            found.taken.append(LegacyRow(row, position, *_segment(kind, row, entry, names)))
        except InvalidInput as error:
            found.bad.append(BadRow(row, error.detail))
    known = set(rows)
    found.bad.extend(
        BadRow(row, "it has metadata but no vector")
        for row, entry in metadata.items()
        if row not in known and entry is not None
    )
    return found


def _given_names(entries: Any) -> set[tuple[str, str]]:
    return {
        (str(entry.get("media_item_id")), str(entry["segment_id"]))
        for entry in entries
        if isinstance(entry, dict) and entry.get("segment_id") is not None
    }


def _segment(
    kind: EmbeddingType, row: int, entry: Any, names: set[tuple[str, str]]
) -> tuple[Id, Segment]:
    if not isinstance(entry, dict):
        raise InvalidInput(f"its metadata is a {type(entry).__name__}, expected a dict")
    media_item_id = _id(entry.get("media_item_id"), "media_item_id")
    segment_id: Id = row
    if entry.get("segment_id") is not None:
        segment_id = _id(entry["segment_id"], "segment_id")
    elif (str(media_item_id), str(row)) in names:
        segment_id = f"row-{row}"  # the number is another segment's name
    start_time = entry.get("start_time")
    taken = _FIELDS
    if kind is EmbeddingType.FRAME and start_time is None and "timestamp" in entry:
        start_time, taken = entry["timestamp"], _FIELDS | {"timestamp"}
    segment = Segment(
        segment_id,
        _text(entry.get("text")),
        _seconds(start_time, "start_time"),
        _seconds(entry.get("end_time"), "end_time"),
        _Json().object({key: value for key, value in entry.items() if key not in taken}, 0),
    )
    row_of(media_item_id, segment)  # refuses what the store can't give back
    return media_item_id, segment


def _id(value: Any, what: str) -> Id:
    if isinstance(value, bytes):
        value = _decoded(value, what)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of integers with a gap becomes one of floats in pandas
    if value is None or value == "":
        raise InvalidInput(f"it has no {what}")
    return plain_id(value, what)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return _decoded(value, "text")
    if not isinstance(value, str):
        raise InvalidInput(f"its text is a {type(value).__name__}, expected a string")
    return value


def _decoded(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"its {what} is no UTF-8") from error


def _seconds(value: Any, what: str) -> float | int | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError as error:
            raise InvalidInput(f"its {what} is {value[:50]!r}, expected seconds") from error
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InvalidInput(f"its {what} is a {type(value).__name__}, expected seconds")
    return value


class _Json:
    """Turns a row's further fields into what JSON can hold.

    Few bytes of pickle can make a value that is used a million times, or that contains itself:
    the values and characters of a row are counted, as often as each is met.
    """

    def __init__(self) -> None:
        self._values = 0
        self._chars = 0

    def object(self, mapping: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        return {self._key(key): self._value(value, depth) for key, value in mapping.items()}

    def _key(self, key: Any) -> str:
        if isinstance(key, float | int | str | bytes | date | time | None):
            plain = self._value(key, _MAX_NESTING)
            return plain if isinstance(plain, str) else str(plain)
        raise InvalidInput(f"its metadata has a {type(key).__name__} as a name")

    def _value(self, value: Any, depth: int) -> Any:
        self._values += 1
        self._chars += len(value) if isinstance(value, str | bytes | bytearray) else 0
        if self._values > _MAX_VALUES or self._chars > _MAX_CHARS:
            raise InvalidInput(
                f"its metadata has more than {_MAX_VALUES} values or {_MAX_CHARS} characters"
            )
        match value:
            case None | bool() | str():
                return value
            case int():
                return value if value in _INT64 else str(value)
            case float():
                return value if math.isfinite(value) else None
            case bytes() | bytearray():
                return self._binary(bytes(value))
            case datetime() | date() | time():
                return value.isoformat()
            case timedelta():
                return value.total_seconds()
        if depth >= _MAX_NESTING:
            raise InvalidInput(f"its metadata is nested deeper than {_MAX_NESTING} levels")
        match value:
            case dict():
                return self.object(value, depth + 1)
            case list() | tuple():
                return [self._value(item, depth + 1) for item in value]
            case set() | frozenset():
                items = [self._value(item, depth + 1) for item in value]
                return sorted(items, key=lambda item: (type(item).__name__, str(item)))
        raise InvalidInput(f"its metadata has a {type(value).__name__}")

    def _binary(self, value: bytes) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
