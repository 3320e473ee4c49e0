"""Requests to the service, with what can happen to them as values."""

import http.client
import json
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request. `status` is None without an answer, and `error` says why then."""

    status: int | None
    body: Any
    retry_after: str | None
    began: float
    """By the monotonic clock."""
    seconds: float
    error: str = ""
    sent: bool = True
    """Whether any of the request may have reached the service."""

    @property
    def ok(self) -> bool:
        return self.status == 200

    def __str__(self) -> str:
        return f"{self.status or self.error} after {self.seconds:.2f} s: {str(self.body)[:300]}"


class Api:
    """One connection, kept alive; for one thread."""

    def __init__(self, port: int, timeout_s: float) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None

    def request(self, method: str, path: str, body: Any = None) -> Answer:
        """Send a request and wait for its answer, or for the end of the connection."""
        began = time.monotonic()
        sent = False
        try:
            connection = self._open()
            sent = True
            self._send(connection, method, path, body)
            response = connection.getresponse()
            text = response.read()
            if response.will_close:
                self.close()
            return Answer(
                response.status,
                _parsed(text),
                response.headers.get("Retry-After"),
                began,
                time.monotonic() - began,
            )
        except (OSError, http.client.HTTPException) as error:
            self.close()
            reason = f"{type(error).__name__}: {error}"
            return Answer(None, None, None, began, time.monotonic() - began, reason, sent)

    def abandon(self, method: str, path: str, body: Any, after_s: float) -> bool:
        """Send a request and hang up without its answer; returns whether it was sent."""
        try:
            self._send(self._open(), method, path, body)
            time.sleep(after_s)
            return True
        except (OSError, http.client.HTTPException):
            return True
        finally:
            self.close()

    def search(self, query: str, kind: str, top_k: int) -> Answer:
        body = {"query": query, "embedding_type": kind, "top_k": top_k}
        return self.request("POST", "/search", body)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> http.client.HTTPConnection:
        if self._connection is None:
            connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=self._timeout_s
            )
            connection.connect()
            assert connection.sock is not None
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection = connection
        return self._connection

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Any
    ) -> None:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        connection.request(method, path, data, headers)


def _parsed(text: bytes) -> Any:
    with suppress(ValueError):
        return json.loads(text)
    return text.decode(errors="replace")
