"""The servers that are compared, each a tree of processes whose CPU time and memory count."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from tests.serve.prometheus import wait_for_metrics
from tests.serve.service import ROOT, Service, free_ports

MODEL = "all-MiniLM-L6-v2"


class Counters(NamedTuple):
    """Queries that this service's Ingress has sent to an encoder, and the calls that it made."""

    queries: float
    calls: float


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it answers, its first process, and how long it took to start."""

    name: str
    url: str
    pid: int
    start_s: float
    embeds_only: bool = False
    """Whether it has no store: a search is then compared with encoding the query."""
    read_counters: Callable[[int], Counters] | None = None
    """Waits until it has counted so many queries since its start, and tells its counters."""

    def search(self, queries: Sequence[str], top_k: int) -> tuple[str, list[dict]]:
        """Path and bodies of requests that search for these texts."""
        if self.embeds_only:
            return "/embeddings", [{"model": MODEL, "input": [query]} for query in queries]
        return "/search", [{"query": query, "top_k": top_k} for query in queries]

    def cpu_s(self) -> float:
        """CPU time of all its processes that live, since they began."""
        total = 0.0
        for process in self._processes():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def memory_mb(self) -> float:
        """Memory of all its processes; what several share is counted once (PSS)."""
        total = 0
        for process in self._processes():
            try:
                total += process.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return total / 1e6

    def _processes(self) -> Sequence[psutil.Process]:
        first = psutil.Process(self.pid)
        return [first, *first.children(recursive=True)]


@contextmanager
def service(folder: Path) -> Iterator[Server]:
    """This service, as `make run` starts it, with an empty index."""
    started = time.monotonic()
    with Service(folder) as running:
        start_s = time.monotonic() - started
        yield Server(
            "service",
            running.url,
            running.pid,
            start_s,
            read_counters=partial(_counters, running),
        )


def _counters(running: Service, queries: int) -> Counters:
    counted = "embeddings_ingress_queries_total"
    metrics = wait_for_metrics(running, lambda seen: (seen.value(counted) or 0) >= queries)
    calls = metrics.value("embeddings_ingress_encoder_calls_total")
    return Counters(metrics.value(counted) or 0, calls or 0)


@contextmanager
def baseline() -> Iterator[Server]:
    """The service that most people would write, in tests/bench/baseline.py."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "tests.bench.baseline:app", "--port", str(port)]
    command += ["--log-level", "warning"]
    with started("baseline", command, f"http://127.0.0.1:{port}") as server:
        yield server


@contextmanager
def started(
    name: str,
    command: Sequence[str],
    url: str,
    *,
    ready_path: str = "/health/ready",
    embeds_only: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A server that a command runs until it is terminated."""
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_ready(f"{url}{ready_path}", process)
        yield Server(name, url, process.pid, time.monotonic() - began, embeds_only)
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            httpx.get(url).raise_for_status()
            return
        except httpx.HTTPError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
