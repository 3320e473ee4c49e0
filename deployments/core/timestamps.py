"""Times as all responses write them."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

Timestamp = Annotated[str, Field(examples=["2025-11-20T21:00:00Z"])]


def now() -> str:
    """The present time in UTC, to the second, with a `Z`."""
    return as_timestamp(datetime.now(UTC).timestamp())


def as_timestamp(seconds: float) -> str:
    """A time in Unix seconds as all responses write it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
