"""Requests' bodies as JSON, and by name what has no form in it."""

import json
import math
from collections.abc import Iterator
from typing import Any

from deployments.client.errors import InvalidValue
from deployments.client.results import Json


def encoded(body: Json) -> bytes:
    """A body as JSON in UTF-8. Raises InvalidValue, which names the value that has no form."""
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode()
    except RecursionError as error:
        raise InvalidValue("the request is nested too deeply; nothing was sent") from error
    except (TypeError, ValueError) as error:
        reason = next(_wrong("", body), f"the request has no form in JSON: {error}")
        raise InvalidValue(f"{reason}; nothing was sent") from error


def check_text(name: str, text: str) -> None:
    """Raise InvalidValue for a text that has no form in UTF-8."""
    for reason in _wrong_text(name, text):
        raise InvalidValue(f"{reason}; nothing was sent")


def _wrong(name: str, value: Any) -> Iterator[str]:
    """What is wrong with a value and with those in it."""
    if isinstance(value, str):
        yield from _wrong_text(name, value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{name} is {value}, which is no number in JSON"
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _wrong_text(f"a field's name in {name or 'the request'}", str(key))
            yield from _wrong(f"{name}.{key}" if name else str(key), each)
    elif isinstance(value, list | tuple):
        for position, each in enumerate(value):
            yield from _wrong(f"{name}.{position}", each)
    elif value is not None and not isinstance(value, int):
        yield f"{name} is of type {type(value).__name__}, which has no form in JSON"


def _wrong_text(name: str, text: str) -> Iterator[str]:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        yield (
            f"{name} has {text[error.start]!r} at position {error.start} (from 0), which is no "
            "character: half of one, or a byte that isn't UTF-8"
        )
