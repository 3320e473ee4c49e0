"""The cursors by which callers ask for the next page of a search."""

import base64
import binascii
import math
from hashlib import blake2b

import orjson

from deployments.core.errors import InvalidInput
from deployments.core.shapes import Position

FIRST = "*"
"""Stands for the first page."""

_VERSION = 1
_KEY_BYTES = 9
_INT64 = range(2**63)


def key_of(*ranking: object) -> str:
    """Short and equal for equal values of what decides a ranking."""
    return base64.urlsafe_b64encode(
        blake2b(repr(ranking).encode(), digest_size=_KEY_BYTES).digest()
    ).decode()


def encoded(key: str, position: Position) -> str:
    """The cursor for what comes after a position, of letters, digits, - and _."""
    values = [_VERSION, key, position.as_of, position.score, position.sequence]
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")


def decoded(cursor: str, key: str) -> Position | None:
    """The position of a cursor; None for the first page.

    Raises InvalidInput for what isn't a cursor of the search with this key.
    """
    if cursor == FIRST:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        values = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        version, of, as_of, score, sequence = values
        well_formed = (
            version == _VERSION
            and isinstance(of, str)
            and all(type(each) is int and each in _INT64 for each in (as_of, sequence))
            and isinstance(score, int | float)
            and math.isfinite(score)
        )
    except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError, TypeError, ValueError):
        well_formed = False
    if not well_formed:
        raise InvalidInput(
            f"cursor is none that this service gave; send the next_cursor of the page before as it "
            f"is, or {FIRST!r} for the first page"
        )
    if of != key:
        raise InvalidInput(
            "cursor is of another search; only top_k, explain, highlight and context may differ "
            f"between pages. Send {FIRST!r} for the first page of this search"
        )
    return Position(as_of, float(score), sequence)
