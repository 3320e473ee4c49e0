"""Filters in the body of a request and in its URL."""

import math
import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from deployments.core.fields import INT64
from deployments.core.filters import Column, Filter, Scalar, all_of
from deployments.core.search.filter_parser import FilterParser

URL_PREFIX = "metadata."

_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")


def parsed(value: Any) -> Filter | None:
    """The filter of a JSON value; None for an object without conditions.

    Raises PydanticCustomError with the place of what is wrong.
    """
    if value is None or value == {}:
        return None
    return FilterParser().filter(value, "filter")


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
    parser, parts = FilterParser(), []
    if ids := list(media_item_ids):
        parts.append(parser.filter({Column.MEDIA_ITEM_ID.value: {"$in": ids}}, "query"))
    time = {name: at for name, at in (("from", start), ("to", end)) if at is not None}
    if time:
        parts.append(parser.filter({"$time": time}, "query"))
    for field, values in fields.items():
        parts.append(parser.filter({field: {"$in": values}}, "metadata"))
    return all_of(parts) if parts else None


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
results, with dots between names inside of each other (a name that has a dot itself can't be asked
for); all conditions of an object must hold.

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
