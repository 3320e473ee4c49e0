"""The cursors by which callers ask for the next page."""

import base64
import binascii
from hashlib import blake2b
from typing import Any

import orjson

from deployments.core.errors import InvalidInput
from deployments.core.fields import INT64
from deployments.core.shapes import Position

FIRST = "*"
"""Stands for the first page."""

_VERSION = 1
_KEY_BYTES = 9
_MARK_BYTES = 6
MARK_CHARS = 8


def key_of(*decisive: object) -> str:
    """Short, and equal for equal values of what decides the order and what is in it."""
    return base64.urlsafe_b64encode(
        blake2b(repr(decisive).encode(), digest_size=_KEY_BYTES).digest()
    ).decode()


def packed(key: str, *values: object) -> str:
    """A cursor of letters, digits, - and _ that holds plain values."""
    document = orjson.dumps([_VERSION, key, *values])
    return base64.urlsafe_b64encode(document).decode().rstrip("=")


def unpacked(cursor: str, key: str, *kinds: tuple[type, ...]) -> list[Any] | None:
    """The values of a cursor, of one of these types each; None for the first page.

    Raises InvalidInput for what isn't a cursor with such values and this key.
    """
    if cursor == FIRST:
        return None
    none = InvalidInput(
        "cursor is none that this service gave; send the next_cursor of the page before as it is, "
        f"or {FIRST!r} for the first page"
    )
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        version, of, *values = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError, TypeError, ValueError):
        raise none from None
    if version != _VERSION or not isinstance(of, str):
        raise none
    if of != key:
        raise InvalidInput(
            f"cursor is of another request than this one; send {FIRST!r} for the first page"
        )
    if (
        len(values) != len(kinds)
        or any(type(value) not in kind for value, kind in zip(values, kinds, strict=True))
        or any(type(value) is int and not -INT64 <= value < INT64 for value in values)
    ):
        raise none
    return values


def encoded(key: str, position: Position) -> str:
    """The cursor of a search for what comes after a position."""
    marks = "".join(position.shown)
    return packed(key, position.as_of, position.score, position.sequence, marks, position.model)


def decoded(cursor: str, key: str) -> Position | None:
    """The position of a search's cursor; None for the first page. Raises InvalidInput."""
    values = unpacked(cursor, key, (int,), (int, float), (int,), (str,), (str,))
    if values is None:
        return None
    as_of, score, sequence, marks, model = values
    shown = (marks[start : start + MARK_CHARS] for start in range(0, len(marks), MARK_CHARS))
    return Position(as_of, score, sequence, tuple(shown), model)


def mark_of(name: str) -> str:
    """MARK_CHARS characters, 48 bits of a hash, that stand for a name."""
    return base64.urlsafe_b64encode(
        blake2b(name.encode(), digest_size=_MARK_BYTES).digest()
    ).decode()
