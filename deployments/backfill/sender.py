"""Keeps as many calls in flight as the service likes."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from deployments.backfill.calls import Call
from deployments.backfill.destination import Destination, Postponed, Refused, Unexplained
from deployments.core.errors import NotReady, ServiceError
from deployments.core.segments import EmbeddingType, UpsertResult

FIRST_CALLS = 4
FEWEST_CALLS = 2
MOST_CALLS = 256

CALL_SECONDS = 4.0
"""More calls are tried while one takes less. An encoder then always has a few seconds of work
waiting, which is what the autoscaler looks at, and a call stays far from its time-out."""

FIRST_PATIENCE_S = 30.0
"""How long a service may be out of reach that has never answered."""

PATIENCE_S = 600.0
"""How long a service may be out of reach that has answered: longer than a restart."""

MOST_UNEXPLAINED = 10
"""How often one call may end without a reason: with the pauses between for about two minutes,
longer than the restart of what was killed. The call itself may be what kills."""

LONGEST_PAUSE_S = 15.0


@dataclass(slots=True)
class Pressure:
    """How many calls may be in flight.

    One more for each round of answers that were quick, half as many when the service refuses, once
    a round: what TCP does.
    """

    calls: float = FIRST_CALLS
    _round_began: float = 0.0

    def answered(self, seconds: float) -> None:
        """Take account of a call that took so long."""
        step = 1 / self.calls if seconds < CALL_SECONDS else -1 / self.calls
        self.calls = min(max(self.calls + step, FEWEST_CALLS), MOST_CALLS)

    def refused(self, began: float, now: float) -> None:
        """Take account of a call, begun at `began`, that the service couldn't take now."""
        if began >= self._round_began:
            self.calls = max(self.calls / 2, FEWEST_CALLS)
            self._round_began = now


@dataclass(slots=True)
class Sender:
    """Sends calls, at most `max_rate` segments a second, and repeats those that are postponed.

    `stored` hears of each call that was answered, `refused` of each that the service won't take.
    A call that is refused for one of its segments is sent again in halves, unless it replaces.
    """

    destination: Destination
    embedding_type: EmbeddingType
    stored: Callable[[Call, UpsertResult], None]
    refused: Callable[[Call, str], None]
    postponed: Callable[[str], None]
    max_rate: float | None = None
    pressure: Pressure = field(default_factory=Pressure)
    _in_flight: dict[asyncio.Task[None], Call] = field(default_factory=dict)
    _next_start: float = 0.0
    _has_answered: bool = False
    _out_of_reach_since: float | None = None

    @property
    def in_flight(self) -> int:
        """Calls that are under way."""
        return len(self._in_flight)

    async def send(self, call: Call) -> None:
        """Start a call when there is room for it; what happens before can raise here.

        Raises what ends the backfill: ServiceError.
        """
        while len(self._in_flight) >= int(self.pressure.calls):
            await self._wait()
        while any(call.conflicts_with(other) for other in self._in_flight.values()):
            await self._wait()
        if self.max_rate is not None:
            now = asyncio.get_running_loop().time()
            self._next_start = max(self._next_start, now)
            await asyncio.sleep(self._next_start - now)
            self._next_start += len(call.items) / self.max_rate
        self._in_flight[asyncio.create_task(self._deliver(call))] = call

    async def finish(self) -> None:
        """Return when all calls are answered. Raises as `send`."""
        while self._in_flight:
            await self._wait()

    async def cancel(self) -> None:
        """Give up what is under way."""
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        self._in_flight.clear()

    async def _wait(self) -> None:
        """Wait for a call."""
        done, _ = await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            del self._in_flight[task]
        failures = [failure for task in done if (failure := task.exception()) is not None]
        if failures:
            raise failures[0]

    async def _deliver(self, call: Call) -> None:
        try:
            result = await self._patiently(call)
        except Refused as error:
            if call.replace or len(call.items) == 1:
                self.refused(call, str(error))
                return
            for half in call.parts((len(call.items) + 1) // 2):
                await self._deliver(half)
        else:
            self.stored(call, result)

    async def _patiently(self, call: Call) -> UpsertResult:
        loop = asyncio.get_running_loop()
        pause_s = 0.0
        unexplained = 0
        while True:
            began = loop.time()
            try:
                result = await self.destination.embed(call.upsert(self.embedding_type))
            except Postponed as error:
                now = loop.time()
                self.pressure.refused(began, now)
                self.postponed(str(error))
                self._check_patience(now, error)
                unexplained += isinstance(error, Unexplained)
                if unexplained > MOST_UNEXPLAINED:
                    raise ServiceError(str(error)) from error
                pause_s = min(max(2 * pause_s, error.retry_after_s), LONGEST_PAUSE_S)
                # Not all at the same moment.
                await asyncio.sleep(pause_s * random.uniform(1.0, 1.5))
            except Refused:
                self._answered()
                raise
            else:
                self._answered()
                self.pressure.answered(loop.time() - began)
                return result

    def _answered(self) -> None:
        self._has_answered = True
        self._out_of_reach_since = None

    def _check_patience(self, now: float, error: Postponed) -> None:
        """Raise NotReady if all calls were postponed for too long.

        Not counted from the last answer: when little is sent, that may be long ago.
        """
        if self._out_of_reach_since is None:
            self._out_of_reach_since = now
        seconds = now - self._out_of_reach_since
        if seconds > (PATIENCE_S if self._has_answered else FIRST_PATIENCE_S):
            raise NotReady(f"nothing could be stored for {seconds:.0f} s: {error}") from error
