"""Vectors that callers made themselves, as they come in JSON."""

import base64
import binascii
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator, WithJsonSchema

from deployments.core.fields import refuse

MOST_NUMBERS = 4096
"""More than models have dimensions; a hundred of them still fit into a call between replicas."""

_FLOAT_BYTES = 4


def unit_vector(value: object) -> bytes:
    """The vector of length 1 in this direction: little-endian float32.

    `value` is a list of numbers, or base64 of little-endian float32. Refuses with a
    PydanticCustomError what is neither, is too long, has no direction or isn't finite.
    """
    if isinstance(value, str):
        numbers = _decoded(value)
    elif isinstance(value, list):
        numbers = _listed(value)
    else:
        raise refuse(
            "embedding_form",
            "must be a list of numbers, or a string: base64 of little-endian float32",
        )
    if not 0 < len(numbers) <= MOST_NUMBERS:
        raise refuse(
            "embedding_length",
            "has {count} numbers, expected 1 to {most}",
            count=len(numbers),
            most=MOST_NUMBERS,
        )
    largest = float(np.abs(numbers).max())
    if not np.isfinite(largest):
        raise refuse("not_finite", "must not have NaN or Infinity")
    if largest == 0:
        raise refuse("zero_vector", "has zeros only, and so no direction to compare")
    # Divided twice, since squares of very large or small numbers leave the range of a float.
    scaled = numbers / largest
    return (scaled / np.linalg.norm(scaled)).astype("<f4").tobytes()


def dimension_of(embedding: bytes) -> int:
    """How many numbers the vector has."""
    return len(embedding) // _FLOAT_BYTES


def _decoded(text: str) -> np.typing.NDArray[np.float64]:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise refuse("embedding_form", "is a string, but no base64") from None
    if len(data) % _FLOAT_BYTES:
        raise refuse(
            "embedding_form",
            "is base64 of {count} bytes; expected little-endian float32, 4 bytes a number",
            count=len(data),
        )
    return np.frombuffer(data, "<f4").astype(np.float64)


def _listed(values: list[object]) -> np.typing.NDArray[np.float64]:
    if not set(map(type, values)) <= {int, float}:
        raise refuse("embedding_form", "must be a list of numbers only")
    try:
        return np.array(values, np.float64)
    except OverflowError:
        raise refuse("not_finite", "has a number beyond 1.8e308") from None


Embedding = Annotated[
    bytes,
    BeforeValidator(unit_vector),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "array",
                    "items": {"type": "number"},
                    "minItems": 1,
                    "maxItems": MOST_NUMBERS,
                },
                {"type": "string", "format": "byte"},
            ]
        }
    ),
]
"""A vector of the caller's own, normalised; as many numbers as the index' model makes."""
