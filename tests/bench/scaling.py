"""Shows how encoders come and go with the load, second by second."""

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.load import Connection
from tests.bench.overload import search_body
from tests.bench.texts import queries, read_texts
from tests.serve.cluster import Cluster, cluster
from tests.serve.service import ROOT

STEPS = ((10, 0), (40, 1), (60, 64), (60, 1), (40, 0))
"""Seconds, and how many clients search at the same time."""

PERIOD_S = 2.0
FAST_REPORTS = {
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
}

console = Console(width=None if sys.stdout.isatty() else 130)


class Clients:
    """Searches without a pause, by as many clients as wanted at the moment."""

    def __init__(self, url: str, texts: list[str]) -> None:
        self._url = url
        self._queries = queries(texts)
        self._taking = threading.Lock()
        self._wanted = 0
        self._running: list[threading.Thread] = []
        self.statuses: Counter[int] = Counter()

    def want(self, count: int) -> None:
        """Have so many clients."""
        self._wanted = count
        for number in range(len(self._running), count):
            thread = threading.Thread(target=self._search, args=(number,))
            self._running.append(thread)
            thread.start()
        for thread in self._running[count:]:
            thread.join()
        del self._running[count:]

    def _search(self, number: int) -> None:
        connection = Connection(self._url)
        while number < self._wanted:
            with self._taking:
                query = next(self._queries)
            status, _ = connection.post("/search", search_body(query))
            self.statuses[status] += 1
        connection.close()


def main() -> int:
    """Print the trace."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scaling", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data/samples")
    parser.add_argument("--workers", type=int, default=2, help="EMBEDDINGS_WORKERS (default: 2)")
    options = parser.parse_args()
    settings = {
        "embeddings_workers": options.workers,
        "embeddings_scale_down_s": 15,
        "embeddings_encoder_threads": 1,
    }
    texts = read_texts(options.data)
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster(Path(folder) / "s", settings, FAST_REPORTS, cpus=2 + options.workers) as running,
    ):
        running.deploy()
        running.wait_for_healthy()
        running.embed(1, [{"id": i, "text": text} for i, text in enumerate(texts[:500])])
        trace = _trace(running, Clients(running.url, texts))
    console.print(trace)
    return 0


def _trace(running: Cluster, clients: Clients) -> Table:
    table = Table()
    for name in ("s", "clients", "searches/s", "other answers", "encoders", "starting"):
        table.add_column(name, justify="right")
    began = time.monotonic()
    ends_s = 0.0
    for seconds, count in STEPS:
        ends_s += seconds
        clients.want(count)
        while (now := time.monotonic() - began) < ends_s:
            before = clients.statuses.copy()
            time.sleep(PERIOD_S)
            encoders = running.status()["embeddings"]["deployments"]["Encoder"]["replica_states"]
            took_s = time.monotonic() - began - now
            statuses = clients.statuses - before
            table.add_row(
                f"{now:.0f}",
                str(count),
                f"{statuses.pop(200, 0) / took_s:.0f}",
                str(sum(statuses.values())),
                str(encoders.get("RUNNING", 0)),
                str(encoders.get("STARTING", 0)),
            )
    clients.want(0)
    return table


if __name__ == "__main__":
    sys.exit(main())
