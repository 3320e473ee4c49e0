"""Requests on threads of their own, which can be given up from outside at any moment."""

import contextlib
import socket
from collections.abc import Callable
from concurrent.futures import Future
from threading import Event, Lock, Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Abandoned(Exception):
    """Nobody waits any more for what this thread asks for. Raised in that thread only."""


class Requests:
    """Requests that are under way together, and end together when somebody loses patience."""

    def __init__(self) -> None:
        self._abandoned = Event()
        self._streams: list[Any] = []
        self._lock = Lock()

    def start(self, call: Callable[[], T]) -> Future[T]:
        """Make a call in a thread that keeps nobody from leaving, not even the interpreter."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

        Thread(target=run, name="store_many", daemon=True).start()
        return future

    def pause(self, seconds: float) -> None:
        """Sleep. Raises Abandoned as soon as that is the case."""
        if self._abandoned.wait(seconds):
            raise Abandoned

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """What httpx calls (its extension `trace`): notes which connections were opened."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            with self._lock:
                self._streams.append(info["return_value"])
                if self._abandoned.is_set():
                    self._cut()

    def abandon(self) -> None:
        """End pauses and connections, those too that are just being made; waits for nothing."""
        with self._lock:
            self._abandoned.set()
            self._cut()

    def _cut(self) -> None:
        for stream in self._streams:
            # Closing wouldn't wake a thread that reads. Of a socket within TLS there is another.
            with contextlib.suppress(OSError, AttributeError):
                socket.socket.shutdown(stream.get_extra_info("socket"), socket.SHUT_RDWR)
