"""Makes one call of many concurrent ones."""

import asyncio
import contextvars
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice
from typing import Generic, TypeVar

from deployments.core.errors import NotReady, Overloaded, ServiceError

SPEED_MEMORY = 0.8
"""Of the measured time of an item, the part that the next call leaves."""

MOST_GROWTH = 4.0
"""A call counts for so many times the time before at most: one that waited for a restart says
little about the next ones."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Coalescer(Generic[Item, Result]):
    """Sends items that wait at the same time as one call.

    A lone item goes at once. Items that are submitted in the same iteration of the event loop
    share a call. While calls run, items collect and leave together when one ends, or as soon as
    `full_batch` of them wait and fewer than `max_in_flight` calls run.

    `call` gets 1 to `max_batch` items and returns one result or exception for each, in order.
    More than `max_waiting` items that aren't sent yet are refused with Overloaded, and so are any
    behind as many as are answered in `max_wait_s`, by the speed so far. Serves one event loop.
    """

    def __init__(
        self,
        call: Callable[[list[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        max_in_flight: int,
        max_batch: int,
        max_waiting: int,
        full_batch: int = 1,
        max_wait_s: float = math.inf,
    ) -> None:
        if min(max_in_flight, max_batch, max_waiting, full_batch) < 1:
            raise ValueError(
                f"max_in_flight ({max_in_flight}), max_batch ({max_batch}), max_waiting "
                f"({max_waiting}) and full_batch ({full_batch}) must be at least 1"
            )
        self._call = call
        self._max_in_flight = max_in_flight
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._full_batch = full_batch
        self._max_wait_s = max_wait_s
        self._seconds_an_item = 0.0
        self._answered_at = -math.inf
        self._waiting: dict[asyncio.Future[Result], Item] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._flush_is_due = False
        self._closed = False

    @property
    def waiting(self) -> int:
        """Items that aren't sent yet."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Calls that run now."""
        return len(self._calls)

    async def submit(self, item: Item) -> Result:
        """Send an item and return its result.

        Raises what `call` returned for the item or raised, Overloaded if too many items wait, and
        NotReady after `close`. Cancelling it before the item is sent keeps it from being sent.
        """
        if self._closed:
            raise NotReady("this replica is shutting down; send the request again")
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(f"{len(self._waiting)} requests are waiting already; try again later")
        wait_s = len(self._waiting) * self._seconds_an_item
        if wait_s > self._max_wait_s:
            raise Overloaded(
                f"{len(self._waiting)} requests are waiting already, which takes about "
                f"{wait_s:.0f} s; try again later"
            )
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting[future] = item
        self._flush_soon()
        try:
            return await future
        except asyncio.CancelledError:
            self._waiting.pop(future, None)
            raise

    async def close(self) -> None:
        """Refuse new items, fail those that wait with NotReady, let running calls end."""
        self._closed = True
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            _fail(future, NotReady("this replica is shutting down; send the request again"))
        while self._calls:
            await asyncio.wait(self._calls)

    def _flush_soon(self) -> None:
        if not self._flush_is_due and self._may_send():
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _may_send(self) -> bool:
        if not self._calls:
            return bool(self._waiting)
        return len(self._waiting) >= self._full_batch and len(self._calls) < self._max_in_flight

    def _flush(self) -> None:
        self._flush_is_due = False
        while self._may_send():
            batch = list(islice(self._waiting.items(), self._max_batch))
            for future, _ in batch:
                del self._waiting[future]
            # A future is already cancelled when its submitter has yet to wake up and see it.
            batch = [(future, item) for future, item in batch if not future.done()]
            if not batch:
                continue
            # An empty context: the call belongs to all its submitters. In the first one's context
            # it would carry that request's id, and Serve would cancel it with that request.
            task = asyncio.get_running_loop().create_task(
                self._send(batch), context=contextvars.Context()
            )
            self._calls.add(task)
            task.add_done_callback(partial(self._ended, batch))

    def _ended(
        self, batch: list[tuple[asyncio.Future[Result], Item]], task: asyncio.Task[None]
    ) -> None:
        self._calls.discard(task)
        for future, _ in batch:
            # Only those of a cancelled call, which may not even have begun.
            _fail(future, NotReady("the call was cancelled; send the request again"))
        # Soon, not now: submitters that the call woke run first, and what they submit joins.
        self._flush_soon()

    async def _send(self, batch: list[tuple[asyncio.Future[Result], Item]]) -> None:
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        try:
            results = await self._call([item for _, item in batch])
            if len(results) != len(batch):
                raise ServiceError(f"{len(batch)} items were sent, {len(results)} results returned")
        except Exception as error:
            for future, _ in batch:
                _fail(future, error)
            return
        # Calls overlap: what counts is how long after the one before this one's answers came.
        now = loop.time()
        seconds = (now - max(sent_at, self._answered_at)) / len(batch)
        before = self._seconds_an_item or seconds
        seconds = min(seconds, MOST_GROWTH * before)
        self._seconds_an_item = SPEED_MEMORY * before + (1 - SPEED_MEMORY) * seconds
        self._answered_at = now
        for (future, _), result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                _fail(future, result)
            elif not future.done():
                future.set_result(result)


def _fail(future: asyncio.Future[Result], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
