"""Working in the background without being felt."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SLICE_S = 0.002
_INSTRUCTIONS = 1000  # of SQLite's machine, about 0.1 ms


class Stopped(Exception):
    """The work was told to end."""


class Pace:
    """Rests after every 2 ms of work, so long that the work takes `share` of the time.

    Python code holds the interpreter's lock while it works: searches wait for a slice at most.
    """

    def __init__(
        self,
        stop: threading.Event,
        share: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stop = stop
        self._rest_per_work = (1 - share) / share
        self._clock = clock
        self._since = clock()

    def __call__(self) -> None:
        """Rest if it is time to. Raises Stopped."""
        if self._rested():
            raise Stopped

    def _rested(self) -> bool:
        worked = self._clock() - self._since
        if worked < _SLICE_S:
            return self._stop.is_set()
        stopped = self._stop.wait(worked * self._rest_per_work)
        self._since = self._clock()
        return stopped

    @contextmanager
    def of(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Let the statements of a connection keep the pace too. Raises Stopped."""
        connection.set_progress_handler(self._rested, _INSTRUCTIONS)
        try:
            yield
        except Exception as error:
            # SQLite's "interrupted", whatever it was made to.
            if self._stop.is_set():
                raise Stopped from error
            raise
        finally:
            connection.set_progress_handler(None, _INSTRUCTIONS)
