"""Requests that arrive at a given rate, whether or not those before have been answered.

Clients that wait for an answer before they ask again slow down with the server and so never ask
for more than it can do. These don't.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

TICK_S = 0.005
NO_ANSWER = 0
"""The status of a request whose connection was refused or broke, or that took too long."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Requests of one kind: POSTs of `bodies` to `path`, so many a second."""

    name: str
    path: str
    bodies: Iterator[bytes]
    rate: float


@dataclass(frozen=True, slots=True)
class Answer:
    """When a request was sent, in seconds since the begin, how it ended and when."""

    stream: str
    sent_s: float
    latency_s: float
    status: int


class Arrivals:
    """Sends streams of requests over as many connections as it takes, up to `most_open`.

    A request that finds all of them in use is counted in `unsent`. Serves one run.
    """

    def __init__(self, url: str, most_open: int, timeout_s: float) -> None:
        address = urlsplit(url)
        self._host = address.hostname or ""
        self._port = address.port or 80
        self._most_open = most_open
        self._timeout_s = timeout_s
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._open: set[asyncio.Task[None]] = set()
        self._began = 0.0
        self.answers: list[Answer] = []
        self.unsent = 0

    def run(self, streams: list[Stream], seconds: float) -> None:
        """Send for so long, and return when everything is answered."""
        asyncio.run(self._run(streams, seconds))

    async def _run(self, streams: list[Stream], seconds: float) -> None:
        self._began = time.perf_counter()
        sent = dict.fromkeys((stream.name for stream in streams), 0)
        while (now := time.perf_counter() - self._began) < seconds:
            for stream in streams:
                while sent[stream.name] < now * stream.rate:
                    sent[stream.name] += 1
                    self._begin(stream)
            await asyncio.sleep(TICK_S)
        while self._open:
            await asyncio.wait(self._open)
        for _, writer in self._idle:
            writer.close()

    def _begin(self, stream: Stream) -> None:
        if len(self._open) >= self._most_open:
            self.unsent += 1
            return
        task = asyncio.get_running_loop().create_task(self._send(stream))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _send(self, stream: Stream) -> None:
        sent = time.perf_counter()
        status = NO_ANSWER
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(self._timeout_s):
                status = await self._post_somewhere(stream.path, next(stream.bodies))
        latency_s = time.perf_counter() - sent
        self.answers.append(Answer(stream.name, sent - self._began, latency_s, status))

    async def _post_somewhere(self, path: str, body: bytes) -> int:
        """Post, on a new connection if the server has ended an idle one meanwhile."""
        while self._idle:
            try:
                return await self._post(path, body, *self._idle.pop())
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise
            except ConnectionError:
                pass
        return await self._post(path, body, *await asyncio.open_connection(self._host, self._port))

    async def _post(
        self, path: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> int:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b":", 1) for line in answer.split(b"\r\n")[1:-2])
            await reader.readexactly(int(fields[b"content-length"]))
        except BaseException:
            writer.close()
            raise
        if fields.get(b"connection", b"").strip() == b"close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(answer.split(b" ", 2)[1])
