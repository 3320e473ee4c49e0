"""Working in the background without being felt."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

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
        self._connection: sqlite3.Connection | None = None

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

    def stop(self) -> None:
        """End the work from another thread, and a statement that can't be paced at once."""
        self._stop.set()
        connection = self._connection
        if connection is not None:
            with suppress(sqlite3.ProgrammingError):  # closed meanwhile
                connection.interrupt()

    @contextmanager
    def of(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Let the statements of a connection keep the pace too. Raises Stopped."""
        connection.set_progress_handler(self._rested, _INSTRUCTIONS)
        self._connection = connection
        try:
            yield
        except Exception as error:
            # SQLite's "interrupted", whatever it was made to.
            if self._stop.is_set():
                raise Stopped from error
            raise
        finally:
            self._connection = None
            connection.set_progress_handler(None, _INSTRUCTIONS)
