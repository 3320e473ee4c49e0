"""Reading the whole store beside the service, from time to time, to notice damage early."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import numpy as np
import numpy.typing as npt

from deployments.core.errors import ServiceError
from deployments.core.pace import Pace, Stopped
from deployments.core.segments import EmbeddingType
from deployments.core.storage import store_check
from deployments.core.storage.store import Store
from deployments.core.vectors.published_state import PublishedState

logger = logging.getLogger(__name__)

_ROWS_AT_ONCE = 100
_SHARE = 0.1  # of one core
_PUBLISH_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong, one sentence each, and with how many rows that are in memory."""

    problems: Sequence[str] = ()
    damaged_rows: int = 0


def examine(store: Store, published: PublishedState, pace: Pace) -> Findings:
    """Check SQLite's structures, and each row that searches can find.

    Rows are read some at a time, each time from the present state, so that no long read keeps the
    write-ahead log from being emptied. Raises Stopped, StoreError, NotReady.
    """
    with store.reading() as reader, pace.of(reader.connection):
        problems = store_check.structure_problems(reader)
    of_rows: list[str] = []
    for kind, snapshot in published.current.snapshots.items():
        rows = snapshot.live_sequences()
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            pace()
            of_rows += _row_problems(store, published, kind, rows[start : start + _ROWS_AT_ONCE])
    return Findings([*problems, *of_rows], len(of_rows))


def _row_problems(
    store: Store, published: PublishedState, kind: EmbeddingType, rows: npt.NDArray[np.int64]
) -> list[str]:
    while True:
        with store.reading() as reader:
            state = published.at(reader.commit_id(), _PUBLISH_TIMEOUT_S)
            if state is not None:
                # Without those that were deleted meanwhile.
                live = state.snapshots[kind].live_among(rows)
                return store_check.row_problems(reader, kind, live.tolist())


class Checked(Protocol):
    """What is checked: an index with a store."""

    def check(self, pace: Pace) -> None:
        """Read everything at a pace. Raises Stopped, ServiceError."""


class BackgroundCheck:
    """A thread that checks an index at once, and again each time `interval_s` have passed."""

    def __init__(self, index: Checked, interval_s: float) -> None:
        self._index = index
        self._interval_s = interval_s
        self._closing = threading.Event()
        self._pace = Pace(self._closing, _SHARE)
        self._thread = threading.Thread(target=self._run, name="store-check", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            started = monotonic()
            try:
                # A new one each time: a pace takes what has passed since its last rest for work.
                self._pace = Pace(self._closing, _SHARE)
                self._index.check(self._pace)
            except Stopped:
                return
            except ServiceError as error:
                logger.warning("The store could not be checked: %s", error)
            except Exception:
                logger.exception("The check of the store failed unexpectedly.")
            else:
                logger.info("The store was checked in %.0f s.", monotonic() - started)
            if self._closing.wait(self._interval_s):
                return

    def close(self) -> None:
        """End the thread, whatever it is at."""
        self._pace.stop()
        self._thread.join()
