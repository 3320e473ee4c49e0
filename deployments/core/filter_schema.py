"""Filters as JSON and as parameters of a URL.

The JSON form is that of MongoDB and Chroma: an object from fields to conditions, with the fields'
names as in the `metadata` of a result.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from deployments.core.fields import INT64, MAX_ID_CHARS, refuse, storable_json
from deployments.core.filters import (
    And,
    AnyOf,
    Between,
    Bound,
    Column,
    Exists,
    Filter,
    IdIn,
    Not,
    Or,
    Overlaps,
    Scalar,
    Subject,
)

MOST_CONDITIONS = 100
MOST_VALUES = 1000
MOST_LEVELS = 10
MOST_KEYS = 10
MOST_FIELD_CHARS = 512
URL_PREFIX = "metadata."

_BOUNDS = ("$gt", "$gte", "$lt", "$lte")
_OPERATORS = ("$eq", "$ne", "$in", "$nin", *_BOUNDS, "$exists")
_ID_OPERATORS = ("$eq", "$ne", "$in", "$nin")
_IDS = (Column.MEDIA_ITEM_ID, Column.SEGMENT_ID)
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_UNFILTERED = {"text": "keyword search finds texts, with mode keyword or hybrid"}


class _Parser:
    """Reads one filter, and counts what it asks for."""

    def __init__(self) -> None:
        self._conditions = 0
        self._values = 0

    def filter(self, value: Any, where: str, level: int = 1) -> Filter:
        """The filter of a JSON object."""
        if level > MOST_LEVELS:
            raise _wrong(where, f"is nested deeper than {MOST_LEVELS} levels")
        if not isinstance(value, dict):
            raise _wrong(where, 'must be an object such as {"ticker": "SPY"}')
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
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _several(self, name: str, value: Any, where: str, level: int) -> Filter:
        if not isinstance(value, list) or not value:
            raise _wrong(where, "must be a list of at least one filter")
        parts = (
            self.filter(each, f"{where}.{position}", level + 1)
            for position, each in enumerate(value)
        )
        return And(tuple(parts)) if name == "$and" else Or(tuple(parts))

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
        return Overlaps(start, end)

    def _field(self, name: str, value: Any, where: str) -> list[Filter]:
        subject = _subject(name, where)
        if not isinstance(value, dict):
            self._count(where)
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
            self._count(where)
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
            self._count(where)
            parts.append(_between(subject, bounds, where))
        return parts

    def _any_of(self, subject: Subject, values: Sequence[Any], where: str) -> Filter:
        self._values += len(values)
        if self._values > MOST_VALUES:
            raise _wrong(where, f"is too long: a filter has at most {MOST_VALUES} values in all")
        if isinstance(subject, Column) and subject in _IDS:
            return IdIn.of(subject, [_id(value, where) for value in values])
        return AnyOf.of(subject, [_scalar(value, where) for value in values])

    def _count(self, where: str) -> None:
        self._conditions += 1
        if self._conditions > MOST_CONDITIONS:
            raise _wrong(where, f"is one too many: a filter has at most {MOST_CONDITIONS}")


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
    _storable(value, where)
    if not 0 < len(str(value)) <= MAX_ID_CHARS:
        raise _wrong(where, f"must have 1 to {MAX_ID_CHARS} characters")
    return value


def _number(value: Any, where: str) -> int | float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not -INT64 <= value < INT64:
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
    named: dict[str, Bound] = {name.removeprefix("$"): bound for name, bound in bounds.items()}
    return Between(subject, **named)


def parsed(value: Any) -> Filter | None:
    """The filter of a JSON value; None for an object without conditions.

    Raises PydanticCustomError with the place of what is wrong.
    """
    if value is None or value == {}:
        return None
    return _Parser().filter(value, "filter")


def of_url(
    media_item_ids: Iterable[str],
    start: float | None,
    end: float | None,
    others: Iterable[tuple[str, str]],
) -> Filter | None:
    """The filter of a URL's parameters, which all must hold; None if there are none.

    `others` are all names and values of the URL; those that begin with `metadata.` count, and a
    name that comes again allows another value. A URL doesn't tell numbers from strings: a value
    that looks like a number, true or false stands for both. Raises PydanticCustomError.
    """
    fields: dict[str, list[Scalar]] = {}
    for name, text in others:
        if name.startswith(URL_PREFIX):
            fields.setdefault(name.removeprefix(URL_PREFIX), []).extend(_meanings(text))
    parser, parts = _Parser(), []
    if ids := list(media_item_ids):
        parts.append(parser.filter({Column.MEDIA_ITEM_ID.value: {"$in": ids}}, "query"))
    time = {name: at for name, at in (("from", start), ("to", end)) if at is not None}
    if time:
        parts.append(parser.filter({"$time": time}, "query"))
    for field, values in fields.items():
        parts.append(parser.filter({field: {"$in": values}}, "metadata"))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _meanings(text: str) -> list[Scalar]:
    meanings: list[Scalar] = [text]
    if text in ("true", "false"):
        meanings.append(text == "true")
    elif _NUMBER.fullmatch(text):
        number = int(text) if text.removeprefix("-").isdigit() else float(text)
        if math.isfinite(number) and -INT64 <= number < INT64:
            meanings.append(number)
    return meanings


_EXAMPLES: list[Any] = [
    {"media_item_id": {"$in": [101, "intro"]}, "$time": {"from": 30, "to": 90}},
    {"speaker": "Instructor", "$or": [{"tags": "rsi"}, {"levels.support": {"$gte": 400}}]},
]

_FORM = """Only segments that match are found, and always the best of all that match; if these are
fewer than `top_k`, the answer has `"exhausted": true`. Fields are named as in the `metadata` of
results, with dots between names inside of each other; all conditions of an object must hold.

| | matches |
|---|---|
| `"ticker": "SPY"` or `{"$eq": "SPY"}`, `{"$ne": …}` | an equal value; none that is equal |
| `{"$in": […]}`, `{"$nin": […]}` | a value of the list; none of it |
| `{"$gt": 1, "$lte": 5}`, and `$gte`, `$lt` | a number, or a string, within these bounds |
| `{"$exists": true}` | a value that isn't null |
| `"$time": {"from": 30, "to": 90}` | segments with any of these seconds; one end is enough |
| `"$and": […]`, `"$or": […]`, `"$not": {…}` | other filters |

A list matches if one of its elements does. Numbers equal numbers only, strings strings, and
booleans booleans; as a `media_item_id` or `segment_id`, 1 and "1" are the same. A segment with one
time lasts no time; one without times is in no `$time`."""

FilterIn = Annotated[
    Any,
    PlainValidator(lambda value: value if isinstance(value, Filter) else parsed(value)),
    WithJsonSchema(
        {
            "anyOf": [{"type": "object", "additionalProperties": True}, {"type": "null"}],
            "description": _FORM,
            "examples": _EXAMPLES,
        }
    ),
]
"""A `Filter | None`, from its JSON form."""
