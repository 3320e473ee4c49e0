"""Who gives up storing doesn't wait for a service that is silent or asks for pauses."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from deployments.client import Client, InvalidRequest

PATIENCE_S = 30
"""Far less than a request's time-out, and than the pauses together."""
STORED = {
    "media_item_id": 1,
    "embedding_type": "transcript",
    "embeddings_created": 1,
    "changed": 1,
    "removed": 0,
    "truncated": 0,
}


class Unhelpful(ThreadingHTTPServer):
    """Says nothing, or that one should come back later; an answer to a text that is wrong."""

    daemon_threads = True

    def __init__(self, status: int | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.asked = threading.Event()
        self.cut_off = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Unhelpful

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if b"wrong" in body:
            self.server.asked.wait()
            self.answer(422)
            return
        self.server.asked.set()
        if self.server.status is not None:
            self.answer(self.server.status)
        elif self.rfile.read(1) == b"":
            self.server.cut_off.set()

    def answer(self, status: int) -> None:
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "29")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def unhelpful(status: int | None) -> Iterator[Unhelpful]:
    with Unhelpful(status) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "store_many"]


def all_ended() -> bool:
    for thread in threads():
        thread.join(PATIENCE_S)
    return threads() == []


@pytest.mark.parametrize("status", [None, 429])
def test_ctrl_c_ends_the_command_that_stores(status: int | None) -> None:
    with unhelpful(status) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.client.cli", "embed", "one", "--media-item", "1"],
            env={**os.environ, "EMBEDDINGS_SERVICE_URL": server.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # As at a terminal: what a shell starts in the background ignores interrupts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            assert server.asked.wait(PATIENCE_S)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (130, "", "")


@pytest.mark.parametrize("status", [None, 429])
def test_an_iterator_that_raises_ends_what_is_under_way(status: int | None) -> None:
    def segments() -> Iterator[dict[str, Any]]:
        yield {"id": 1, "text": "one"}
        assert server.asked.wait(PATIENCE_S)
        raise KeyboardInterrupt

    with unhelpful(status) as server, Client(server.url) as client:
        with pytest.raises(KeyboardInterrupt):
            client.store_many(segments(), media_item_id=1, batch_size=1)
        assert all_ended()
        assert status is not None or server.cut_off.wait(PATIENCE_S)


def test_an_error_ends_what_is_under_way() -> None:
    segments = [{"id": 1, "text": "one"}, {"id": 2, "text": "wrong"}]
    with unhelpful(None) as server, Client(server.url) as client:
        with pytest.raises(InvalidRequest):
            client.store_many(segments, media_item_id=1, batch_size=1)
        assert server.cut_off.wait(PATIENCE_S)
        assert all_ended()


def test_a_progress_that_raises_ends_what_is_under_way() -> None:
    held = threading.Event()

    def handle(request: httpx.Request) -> httpx.Response:
        if b"slow" in request.content:
            held.set()
            return httpx.Response(429, headers={"Retry-After": "29"})
        held.wait(PATIENCE_S)
        return httpx.Response(200, json=STORED)

    def progress(_: Any) -> None:
        raise RuntimeError("no room to show it")

    segments = [{"id": 1, "text": "slow"}, {"id": 2, "text": "quick"}]
    with Client("http://service", transport=httpx.MockTransport(handle)) as client:
        with pytest.raises(RuntimeError, match="no room"):
            client.store_many(segments, media_item_id=1, batch_size=1, progress=progress)
        assert all_ended()
        # Others may go on using the client.
        assert not client._http.is_closed
