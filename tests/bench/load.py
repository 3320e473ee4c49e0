"""A load generator light enough not to be what is measured: one thread and raw sockets a client."""

import json
import socket
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Load:
    """What a number of concurrent clients got: requests a second, latencies in milliseconds.

    `refused` are answers 429, `errors` all others that aren't 200.
    """

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    refused: int


class Connection:
    """Keeps one HTTP/1.1 connection and posts JSON over it."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._address = (address.hostname or "", address.port or 80)
        self._host = f"{address.hostname}:{address.port}"
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address)
        self._socket.settimeout(120)
        self._stream = self._socket.makefile("rb")

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer, which has to declare its length."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + body)
        line = self._stream.readline()
        if not line:
            # A server may end a connection between two requests; every request here is repeatable.
            self.close()
            self._connect()
            self._socket.sendall(head.encode() + body)
            line = self._stream.readline()
        status = int(line.split()[1])
        length = 0
        while (line := self._stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, self._stream.read(length)

    def close(self) -> None:
        """End the connection."""
        self._stream.close()
        self._socket.close()


def load(url: str, path: str, bodies: Sequence[dict], concurrency: int, pause_s: float = 0) -> Load:
    """Post every body once, from `concurrency` clients at the same time.

    With `pause_s` a client waits so long after each answer.
    """
    requests = iter([json.dumps(body).encode() for body in bodies])
    taking = threading.Lock()
    latencies: list[float] = []
    statuses: list[int] = []

    def client() -> None:
        connection = Connection(url)
        while True:
            with taking:
                body = next(requests, None)
            if body is None:
                break
            started = time.perf_counter()
            status, _ = connection.post(path, body)
            latencies.append(1000 * (time.perf_counter() - started))
            statuses.append(status)
            if pause_s:
                time.sleep(pause_s)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(concurrency)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    percentiles = statistics.quantiles(latencies, n=100, method="inclusive")
    refused = statuses.count(429)
    errors = len(statuses) - statuses.count(200) - refused
    return Load(len(latencies) / seconds, percentiles[49], percentiles[98], errors, refused)
