"""When the checkpoints should be written again."""

import threading
import time
from collections.abc import Callable, Mapping

from deployments.core.segments import EmbeddingType

_MANY_ROWS = 5000
_MANY_SHARE = 0.2
_QUIET_S = 30.0


class CheckpointSchedule:
    """Counts, by type, the rows that changed since the checkpoint; safe in any thread.

    A checkpoint is due after max(5000, a fifth of the type's rows) changed rows, since replaying
    those at the next start takes about as long as reading it; or after any change followed by 30
    quiet seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: dict[EmbeddingType, int] = {}
        self._last_change = clock()

    def changed(self, kind: EmbeddingType, rows: int) -> None:
        """Note that rows were added or removed; 0 if only the file is missing."""
        with self._lock:
            self._pending[kind] = self._pending.get(kind, 0) + rows
            self._last_change = self._clock()

    def due(self, rows: Mapping[EmbeddingType, int]) -> bool:
        """Whether now is a good time, with `rows` rows in each type."""
        with self._lock:
            if self._pending and self._clock() - self._last_change >= _QUIET_S:
                return True
            return any(
                changed >= max(_MANY_ROWS, _MANY_SHARE * rows.get(kind, 0))
                for kind, changed in self._pending.items()
            )

    def pending(self) -> dict[EmbeddingType, int]:
        """Types whose checkpoint isn't up to date, with the number of rows that changed."""
        with self._lock:
            return dict(self._pending)

    def written(self, kind: EmbeddingType, rows: int) -> None:
        """Note that a checkpoint holds `rows` of the pending changes."""
        with self._lock:
            left = self._pending.pop(kind, 0) - rows
            if left > 0:
                self._pending[kind] = left
