"""One writer for all: what waits together is committed together."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from time import time
from types import TracebackType
from typing import Protocol

from deployments.core.errors import NotReady, Overloaded, ServiceError, StoreFull
from deployments.core.segments import Upsert, UpsertResult
from deployments.core.storage.operations import Operation

logger = logging.getLogger(__name__)

Pending = tuple[Operation, "Future[UpsertResult | int]"]

_CHECKPOINT_POLL_S = 1.0
_CHECKPOINT_RETRY_S = 30.0


class Index(Protocol):
    """What is written to: a SegmentIndex."""

    def apply(self, operations: Sequence[Operation]) -> list[UpsertResult | int | ServiceError]:
        """Carry out operations durably; see SegmentIndex.apply."""

    def checkpoint_due(self) -> bool:
        """Whether checkpoint() should be called."""

    def checkpoint(self) -> None:
        """Write checkpoints of what changed."""


class GroupCommit:
    """A thread that applies operations in the order in which they came, many in one commit.

    A second thread writes checkpoints when they are due; writes never wait for it. Limits are in
    operations and in segments: of what may wait, and of what goes into one commit.
    """

    def __init__(
        self,
        index: Index,
        *,
        max_waiting_operations: int = 1024,
        max_waiting_segments: int = 50_000,
        max_group_operations: int = 128,
        max_group_segments: int = 5_000,
    ) -> None:
        self._index = index
        self._max_waiting_operations = max_waiting_operations
        self._max_waiting_segments = max_waiting_segments
        self._max_group_operations = max_group_operations
        self._max_group_segments = max_group_segments
        self._changed = threading.Condition()
        self._waiting: deque[Pending] = deque()
        self._waiting_segments = 0
        self._closing = threading.Event()
        self.checkpoint_error: str | None = None
        """Why the last checkpoint could not be written; None if it could."""
        self.checkpoint_failures = 0
        """How often none could be written since the start."""
        self.last_commit_at: float | None = None
        """Unix seconds; None if there was none since the start."""
        self._writer = threading.Thread(target=self._write, name="group-commit")
        self._checkpointer = threading.Thread(target=self._checkpoint, name="checkpoint")
        self._writer.start()
        self._checkpointer.start()

    def submit(self, operation: Operation) -> "Future[UpsertResult | int]":
        """Queue an operation; its future has the outcome once that is durable, or its error.

        Raises Overloaded if too much waits already, NotReady after close(). An operation of any
        size is taken when nothing waits.
        """
        segments = _segments_of(operation)
        with self._changed:
            if self._closing.is_set():
                raise NotReady("The index is closing.")
            if self._waiting and (
                len(self._waiting) >= self._max_waiting_operations
                or self._waiting_segments + segments > self._max_waiting_segments
            ):
                raise Overloaded(
                    f"{len(self._waiting)} writes with {self._waiting_segments} segments are "
                    "waiting already. Try again in a second."
                )
            future: Future[UpsertResult | int] = Future()
            self._waiting.append((operation, future))
            self._waiting_segments += segments
            self._changed.notify_all()
        return future

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
                if not self._waiting:
                    return
                group = self._take_group()
            started = [pending for pending in group if pending[1].set_running_or_notify_cancel()]
            if started:
                self._apply(started)

    def _take_group(self) -> list[Pending]:
        group: list[Pending] = []
        segments = 0
        while self._waiting and len(group) < self._max_group_operations:
            size = _segments_of(self._waiting[0][0])
            if group and segments + size > self._max_group_segments:
                break
            group.append(self._waiting.popleft())
            segments += size
        self._waiting_segments -= segments
        return group

    def _apply(self, group: list[Pending]) -> None:
        try:
            outcomes = self._index.apply([operation for operation, _ in group])
        except BaseException as error:
            if isinstance(error, StoreFull) and len(group) > 1:
                # One large write must not keep out small ones that fit.
                for pending in group:
                    self._apply([pending])
                return
            if not isinstance(error, ServiceError):
                logger.exception("A group of %d writes failed unexpectedly.", len(group))
            for _, future in group:
                future.set_exception(error)
            return
        self.last_commit_at = time()
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, ServiceError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _checkpoint(self) -> None:
        pause_s = _CHECKPOINT_POLL_S
        while not self._closing.wait(pause_s):
            pause_s = _CHECKPOINT_POLL_S
            try:
                if self._index.checkpoint_due():
                    self._index.checkpoint()
                    self.checkpoint_error = None
            except Exception as error:
                self.checkpoint_error = str(error)
                self.checkpoint_failures += 1
                logger.warning("No checkpoint could be written: %s", error)
                pause_s = _CHECKPOINT_RETRY_S

    def close(self) -> None:
        """Take nothing more, apply what waits, and end both threads. The index stays open."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        self._writer.join()
        self._checkpointer.join()

    def __enter__(self) -> "GroupCommit":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _segments_of(operation: Operation) -> int:
    return len(operation.segments) if isinstance(operation, Upsert) else 1
