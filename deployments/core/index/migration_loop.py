"""The thread that brings a migration forward."""

import logging
import threading
from contextlib import suppress
from typing import Protocol

from deployments.core.errors import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
    ServiceError,
    StoreUnwritable,
)

logger = logging.getLogger(__name__)

POLL_S = 0.5
LONGEST_PAUSE_S = 10.0
PASSING = (NotReady, Overloaded, DeadlineExceeded, StoreUnwritable)
"""What goes by if one waits."""


class Steps(Protocol):
    """What is brought forward: a Migration."""

    def step(self) -> bool:
        """Do the next piece of work; False if there is none now."""
        ...

    def fail(self, reason: str) -> None:
        """Note why it can't go on."""
        ...


class MigrationLoop:
    """Does a migration's work step by step, and waits where there is none.

    What fails is tried again after a pause that grows. What doesn't pass by itself is noted with
    the migration, which decides whether there is anything left to try.
    """

    def __init__(self, migration: Steps) -> None:
        self._migration = migration
        self._closing = threading.Event()
        self._awake = threading.Event()
        self._logged = ""
        self._thread = threading.Thread(target=self._run, name="migration", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look for work now."""
        self._awake.set()

    def close(self) -> None:
        """End the thread after the step that it is at."""
        self._closing.set()
        self._awake.set()
        self._thread.join()

    def _run(self) -> None:
        pause_s = POLL_S
        while not self._closing.is_set():
            self._awake.clear()
            try:
                pause_s = 0.0 if self._migration.step() else POLL_S
                self._logged = ""
            except PASSING as error:
                pause_s = _longer(pause_s)
                logger.warning("The migration waits %.0f s: %s", pause_s, error)
            except Exception as error:
                pause_s = _longer(pause_s)
                self._fail(error)
            if pause_s:
                self._awake.wait(pause_s)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, ServiceError):
            reason, traceback = error.detail, None
        else:
            reason, traceback = f"{type(error).__name__}: {error}", error
        if reason != self._logged:
            self._logged = reason
            logger.error("The migration can't go on: %s", reason, exc_info=traceback)
        # A store that takes no writes now doesn't take this one either.
        with suppress(ServiceError):
            self._migration.fail(reason)


def _longer(pause_s: float) -> float:
    return min(2 * max(pause_s, POLL_S), LONGEST_PAUSE_S)
