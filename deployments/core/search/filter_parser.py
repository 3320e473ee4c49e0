"""Reads filters in their JSON form, which is that of MongoDB and Chroma.

It is an object from fields to conditions, with the fields named as in the `metadata` of a result.
"""

from collections.abc import Sequence
from typing import Any

from pydantic_core import PydanticCustomError

from deployments.core.fields import INT64, MAX_ID_CHARS, refuse, storable_json
from deployments.core.filters import (
    AnyOf,
    Between,
    Bound,
    Column,
    Exists,
    Filter,
    IdIn,
    Not,
    Overlaps,
    Scalar,
    Subject,
    all_of,
    any_of,
    canonical,
)

MOST_CONDITIONS = 100
MOST_METADATA_CONDITIONS = 20
MOST_VALUES = 1000
MOST_TEXT_CHARS = 1000
MOST_LEVELS = 10
MOST_KEYS = 10
MOST_FIELD_CHARS = 512

_BOUNDS = ("$gt", "$gte", "$lt", "$lte")
_OPERATORS = ("$eq", "$ne", "$in", "$nin", *_BOUNDS, "$exists")
_ID_OPERATORS = ("$eq", "$ne", "$in", "$nin")
_IDS = (Column.MEDIA_ITEM_ID, Column.SEGMENT_ID)
_UNFILTERED = {"text": "keyword search finds texts, with mode keyword or hybrid"}


class FilterParser:
    """Reads one filter, and counts what it asks for.

    Raises PydanticCustomError with the place of what is wrong.
    """

    def __init__(self) -> None:
        self._conditions = 0
        self._metadata_conditions = 0
        self._values = 0

    def filter(self, value: Any, where: str, level: int = 1) -> Filter:
        """The filter of a JSON object."""
        if level > MOST_LEVELS:
            raise _wrong(where, f"is nested deeper than {MOST_LEVELS} levels")
        if not isinstance(value, dict):
            raise _wrong(where, 'must be an object such as {"ticker": "SPY"}')
        if not value:
            self._count(where)
        parts: list[Filter] = []
        for name, wanted in value.items():
            here = f"{where}.{name}"
            match name:
                case "$and" | "$or":
                    parts.append(self._several(name, wanted, here, level))
                case "$not":
                    parts.append(Not(self.filter(wanted, here, level + 1)))
                case "$time":
                    parts.append(self._time(wanted, here))
                case _:
                    parts.extend(self._field(name, wanted, here))
        return all_of(parts)

    def _several(self, name: str, value: Any, where: str, level: int) -> Filter:
        if not isinstance(value, list) or not value:
            raise _wrong(where, "must be a list of at least one filter")
        parts = (
            self.filter(each, f"{where}.{position}", level + 1)
            for position, each in enumerate(value)
        )
        return all_of(parts) if name == "$and" else any_of(parts)

    def _time(self, value: Any, where: str) -> Filter:
        self._count(where)
        if not isinstance(value, dict) or not value or not value.keys() <= {"from", "to"}:
            raise _wrong(where, 'must be an object with "from", "to" or both, in seconds')
        start, end = (
            _number(value[name], f"{where}.{name}") if name in value else None
            for name in ("from", "to")
        )
        if start is not None and end is not None and end < start:
            raise _wrong(where, f"ends ({end}) before it begins ({start})")
        return Overlaps(*(at if at is None else canonical(at) for at in (start, end)))

    def _field(self, name: str, value: Any, where: str) -> list[Filter]:
        subject = _subject(name, where)
        if not isinstance(value, dict):
            self._count_about(subject, where)
            return [self._any_of(subject, [value], where)]
        allowed = _ID_OPERATORS if subject in _IDS else _OPERATORS
        unknown = next((each for each in value if each not in allowed), None)
        if unknown is not None or not value:
            raise _wrong(
                where,
                f"must have operators out of {', '.join(allowed)}"
                + ("" if unknown is None else f", not {str(unknown)[:40]!r}")
                + "; a field inside of another is written with a dot, outer.inner",
            )
        parts: list[Filter] = []
        for operator, operand in value.items():
            here = f"{where}.{operator}"
            if operator in _BOUNDS:
                continue
            self._count_about(subject, here)
            match operator:
                case "$eq":
                    parts.append(self._any_of(subject, [operand], here))
                case "$ne":
                    parts.append(Not(self._any_of(subject, [operand], here)))
                case "$exists":
                    parts.append(_exists(subject, operand, here))
                case _:
                    if not isinstance(operand, list):
                        raise _wrong(here, "must be a list")
                    found = self._any_of(subject, operand, here)
                    parts.append(found if operator == "$in" else Not(found))
        bounds = {each: value[each] for each in _BOUNDS if each in value}
        if bounds:
            self._count_about(subject, where)
            parts.append(_between(subject, bounds, where))
        return parts

    def _any_of(self, subject: Subject, values: Sequence[Any], where: str) -> Filter:
        self._values += len(values)
        if self._values > MOST_VALUES:
            raise _wrong(where, f"is too long: a filter has at most {MOST_VALUES} values in all")
        if isinstance(subject, Column) and subject in _IDS:
            return IdIn.of(subject, [_id(value, where) for value in values])
        return AnyOf.of(subject, [_scalar(value, where) for value in values])

    def _count_about(self, subject: Subject, where: str) -> None:
        self._count(where)
        self._metadata_conditions += not isinstance(subject, Column)
        if self._metadata_conditions > MOST_METADATA_CONDITIONS:
            raise _wrong(
                where,
                f"is one too many: a filter has at most {MOST_METADATA_CONDITIONS} conditions on "
                "metadata; $in asks for several values in one",
            )

    def _count(self, where: str) -> None:
        self._conditions += 1
        if self._conditions > MOST_CONDITIONS:
            raise _wrong(
                where, f"is one too many: a filter has at most {MOST_CONDITIONS} conditions"
            )


def _wrong(where: str, message: str) -> PydanticCustomError:
    return refuse("filter", "{where} {problem}", where=where[:200], problem=message)


def _subject(name: Any, where: str) -> Subject:
    if name in list(Column):
        return Column(name)
    if not isinstance(name, str) or name.startswith("$"):
        raise _wrong(where, "is no operator here; there are $and, $or, $not and $time")
    if name in _UNFILTERED:
        raise _wrong(where, f"can't be filtered; {_UNFILTERED[name]}")
    keys = tuple(name.split("."))
    if "" in keys or len(keys) > MOST_KEYS or len(name) > MOST_FIELD_CHARS:
        raise _wrong(
            where,
            f"must be 1 to {MOST_KEYS} names with dots between, of up to {MOST_FIELD_CHARS} "
            "characters in all",
        )
    _storable(name, where)
    return keys


def _storable(value: object, where: str) -> None:
    if isinstance(value, str) and len(value) > MOST_TEXT_CHARS:
        raise _wrong(where, f"has {len(value)} characters; at most {MOST_TEXT_CHARS}")
    try:
        storable_json(value)
    except PydanticCustomError as error:
        raise _wrong(where, error.message()) from None


def _scalar(value: Any, where: str) -> Scalar:
    if value is None:
        raise _wrong(where, 'is null; {"$exists": false} finds segments without a value')
    if not isinstance(value, str | int | float):
        raise _wrong(where, "must be a string, a number, true or false")
    _storable(value, where)
    return value


def _id(value: Any, where: str) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _wrong(where, "must be an id, an integer or a string")
    if isinstance(value, str) and not 0 < len(value) <= MAX_ID_CHARS:
        raise _wrong(where, f"must have 1 to {MAX_ID_CHARS} characters")
    _storable(value, where)
    return value


def _number(value: Any, where: str) -> int | float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # Integers may be too large for a float, and no comparison holds for NaN.
    if not number or not -INT64 <= value < INT64:
        raise _wrong(where, "must be a number of seconds")
    return value


def _exists(subject: Subject, value: Any, where: str) -> Filter:
    if not isinstance(value, bool):
        raise _wrong(where, "must be true or false")
    return Exists(subject) if value else Not(Exists(subject))


def _between(subject: Subject, bounds: dict[str, Any], where: str) -> Filter:
    for operator, bound in bounds.items():
        here = f"{where}.{operator}"
        if isinstance(bound, bool) or not isinstance(bound, str | int | float):
            raise _wrong(here, "must be a number or a string")
        _storable(bound, here)
    if len({isinstance(bound, str) for bound in bounds.values()}) > 1:
        raise _wrong(where, "must have numbers only or strings only as bounds")
    if isinstance(subject, Column) and any(isinstance(bound, str) for bound in bounds.values()):
        raise _wrong(where, "must have numbers of seconds as bounds")
    named: dict[str, Bound] = {
        name.removeprefix("$"): bound if isinstance(bound, str) else canonical(bound)
        for name, bound in bounds.items()
    }
    return Between(subject, **named)
