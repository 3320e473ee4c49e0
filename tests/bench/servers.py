"""The servers that are compared, each a tree of processes whose CPU time and memory count."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.serve.service import ROOT, Service, free_ports


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it answers, its first process, and how long it took to start."""

    name: str
    url: str
    pid: int
    start_s: float

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
        yield Server("service", running.url, running.pid, time.monotonic() - started)


@contextmanager
def baseline() -> Iterator[Server]:
    """The service that most people would write, in tests/bench/baseline.py."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "tests.bench.baseline:app", "--port", str(port)]
    started = time.monotonic()
    process = subprocess.Popen(
        [*command, "--log-level", "warning"], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(f"{url}/health/ready", process)
        yield Server("baseline", url, process.pid, time.monotonic() - started)
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
