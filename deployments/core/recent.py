"""Answers many callers with one recent result of something that costs much."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Recent(Generic[Result]):
    """Calls `make` at most once in `max_age_s`, and never twice at the same time.

    Serves one event loop.
    """

    def __init__(self, make: Callable[[], Awaitable[Result]], max_age_s: float) -> None:
        self._make = make
        self._max_age_s = max_age_s
        self._lock = asyncio.Lock()
        self._made: tuple[float, Result] | None = None

    async def get(self) -> Result:
        """A result that is at most `max_age_s` old."""
        async with self._lock:
            if self._made is None or monotonic() - self._made[0] > self._max_age_s:
                result = await self._make()
                # From when it is there: one that took long would be old at once, and each of those
                # that wait would make another.
                self._made = (monotonic(), result)
            return self._made[1]
