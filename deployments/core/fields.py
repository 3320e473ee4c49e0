"""The types of the API's fields, and what each may hold."""

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FiniteFloat,
    StrictBool,
    StrictInt,
    StrictStr,
)
from pydantic_core import PydanticCustomError

MAX_ID_CHARS = 512
MAX_NESTING = 32
INT64 = 2**63
MAX_INT64_CHARS = 20
EXACT_FLOAT_INT = 2**53
"""Integers below this are the same as a float, so a JSON reader of any language keeps them."""


def refuse(code: str, message: str, **context: Any) -> PydanticCustomError:
    """The error of a validator: a stable code, and a message with places for `context`."""
    # What is quoted from a request may have halves of surrogate pairs, which no message can.
    shown = {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in context.items()
    }
    return PydanticCustomError(code, message, shown or None)


def storable_text(text: str) -> str:
    """A validator: a text that SQLite and UTF-8 can hold."""
    if "\x00" in text:
        raise refuse("null_character", "must not contain null characters (U+0000)")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise refuse("lone_surrogate", "must be valid Unicode, without lone surrogates") from None
    return text


def has_content(text: str) -> str:
    """A validator: a storable text that isn't blank."""
    if not text.strip():
        raise refuse("empty_text", "must contain more than white space")
    return storable_text(text)


def _name(value: int | str) -> int | str:
    if isinstance(value, int):
        if not -INT64 <= value < INT64:
            raise refuse("id_too_large", "integers are limited to 64 bits; send it as a string")
        return value
    if not 0 < len(value) <= MAX_ID_CHARS:
        raise refuse("id_length", "must have 1 to {limit} characters", limit=MAX_ID_CHARS)
    if not storable_text(value).isprintable():
        raise refuse("id_characters", "must have printable characters only")
    return value


def _path_name(value: str) -> int | str:
    """A name in a URL, where an integer can't be told from a string that looks like one."""
    looks_whole = value.removeprefix("-").isdecimal() and value.isascii()
    if looks_whole and len(value) <= MAX_INT64_CHARS and str(int(value)) == value:
        return _name(int(value))
    return _name(value)


def no_boolean(value: object) -> object:
    """A validator: numbers that aren't written as true or false."""
    if isinstance(value, bool):
        raise refuse("number_type", "must be a number, not true or false")
    return value


def _switch(value: object) -> object:
    """The boolean that a URL says, which has strings only."""
    return {"true": True, "false": False}.get(str(value).lower(), value)


def _whole_seconds(value: float | int) -> float | int:
    if abs(value) < EXACT_FLOAT_INT:
        return value
    try:
        return float(value)
    except OverflowError:
        raise refuse("number_too_large", "must be a number below 1.8e308") from None


def storable_json(value: object, depth: int = 0) -> None:
    """Refuse what JSON or SQLite can't give back as it was sent."""
    match value:
        case str():
            storable_text(value)
        case float():
            if value != value or value in (float("inf"), float("-inf")):
                raise refuse("not_finite", "must not contain NaN or Infinity")
        case bool() | None:
            pass
        case int():
            if not -INT64 <= value < INT64:
                raise refuse("number_too_large", "integers are limited to 64 bits")
        case dict() | list():
            if depth == MAX_NESTING:
                raise refuse("nesting", "is nested deeper than {limit} levels", limit=MAX_NESTING)
            items = list(value) + list(value.values()) if isinstance(value, dict) else value
            for item in items:
                storable_json(item, depth + 1)


Text = Annotated[str, AfterValidator(has_content)]
Name = Annotated[StrictInt | StrictStr, AfterValidator(_name)]
PathName = Annotated[str, AfterValidator(_path_name)]
Seconds = Annotated[
    Annotated[StrictInt, AfterValidator(_whole_seconds)] | FiniteFloat,
    BeforeValidator(no_boolean),
]
Similarity = Annotated[FiniteFloat, BeforeValidator(no_boolean), Field(ge=0, le=1)]
Share = Annotated[FiniteFloat, BeforeValidator(no_boolean), Field(gt=0, le=1)]
Duplicates = Annotated[StrictBool | Share, BeforeValidator(_switch)]
"""A cosine, or true or false; numbers are cosines also where they are 1, in JSON and in URLs."""
GroupSize = Annotated[int, BeforeValidator(no_boolean), Field(ge=1, le=100)]
Context = Annotated[int, BeforeValidator(no_boolean), Field(ge=0, le=10)]
Offset = Annotated[int, BeforeValidator(no_boolean), Field(ge=0, le=10_000)]
TopK = Annotated[int, BeforeValidator(no_boolean), Field(ge=1)]
