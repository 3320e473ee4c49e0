"""API keys: what counts as one, and what the holder of one may do."""

import hashlib
import hmac
import re
from collections.abc import Iterable
from enum import IntEnum

from pydantic_core import PydanticCustomError

SHORTEST = 16
LONGEST = 256
_SEPARATORS = re.compile(r"[\s,]+")
_KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class Grant(IntEnum):
    """What a request may do; a greater one includes the smaller."""

    READ = 1
    WRITE = 2


def split_keys(text: str) -> tuple[str, ...]:
    """The keys in a list that is separated by commas or white space.

    Raises PydanticCustomError that says which key is wrong by its position only.
    """
    keys = tuple(key for key in _SEPARATORS.split(text) if key)
    if not keys:
        raise PydanticCustomError("api_key", "has no key in it")
    for position, key in enumerate(keys, 1):
        if not SHORTEST <= len(key) <= LONGEST:
            raise PydanticCustomError(
                "api_key",
                "key {position} has {length} characters; {shortest} to {longest} are allowed, "
                "make one by `openssl rand -hex 32`",
                {
                    "position": position,
                    "length": len(key),
                    "shortest": SHORTEST,
                    "longest": LONGEST,
                },
            )
        if not _KEY.fullmatch(key):
            raise PydanticCustomError(
                "api_key",
                "key {position} has other characters than ASCII letters, digits and - . _ ~ + / "
                "(= at the end), make one by `openssl rand -hex 32`",
                {"position": position},
            )
    return keys


class ApiKeys:
    """Tells whose key a presented one is, in a time that doesn't depend on how much of it fits."""

    def __init__(self, full: Iterable[str], read_only: Iterable[str]) -> None:
        self._grants = [(_digest(key.encode()), Grant.WRITE) for key in full]
        self._grants += [(_digest(key.encode()), Grant.READ) for key in read_only]

    def grant(self, presented: bytes) -> Grant | None:
        """What the holder of this key may do; None if it's nobody's."""
        digest, found = _digest(presented), None
        for known, grant in self._grants:
            if hmac.compare_digest(known, digest):
                found = grant
        return found


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
