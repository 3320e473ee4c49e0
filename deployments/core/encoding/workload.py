"""How much work an encoder has, in units that mean the same on any hardware."""

import time
from collections.abc import Callable

from deployments.core.encoding.batcher import BatcherStats


class Workload:
    """Reads a batcher's counters from time to time and tells what they mean for scaling.

    `clock` counts seconds, as the batcher's does.
    """

    def __init__(
        self,
        stats: Callable[[], BatcherStats],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._stats = stats
        self._clock = clock
        self._busy_s = stats().busy_seconds
        self._read_at = clock()

    def read(self) -> dict[str, float]:
        """The work since the last read and the work that waits.

        `busy` is the share of the time, 0 to 1, in which something was encoded. `queued_seconds`
        is how long what waits takes at the speed of the last micro-batches.
        """
        stats, now = self._stats(), self._clock()
        elapsed = now - self._read_at
        busy = (stats.busy_seconds - self._busy_s) / elapsed if elapsed > 0 else 0.0
        self._busy_s, self._read_at = stats.busy_seconds, now
        return {"busy": min(max(busy, 0.0), 1.0), "queued_seconds": stats.queued_seconds}
