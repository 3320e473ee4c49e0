"""Asks the service for several times of what it can do, for minutes, and watches it.

Half of the load are searches with distinct queries, half are requests that store segments with
new texts over the same few media items, so that what is stored stays as much.
"""

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from tests.bench import servers
from tests.bench.arrivals import Arrivals, Stream
from tests.bench.load import load
from tests.bench.overload_report import (
    MEMORY_PERIOD_S,
    SEGMENTS_A_REQUEST,
    as_json,
    bins_of,
    draw,
    table_of,
)
from tests.bench.texts import queries, read_texts, segments
from tests.serve.service import ROOT

MEDIA_ITEMS = 50
MOST_OPEN = 3000
TIMEOUT_S = 90.0

console = Console(width=None if sys.stdout.isatty() else 130)


class Memory(threading.Thread):
    """Reads the memory of a server's processes from time to time."""

    def __init__(self, server: servers.Server) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._ended = threading.Event()
        self.readings_mb: list[float] = []

    def run(self) -> None:
        while not self._ended.wait(MEMORY_PERIOD_S):
            self.readings_mb.append(self._server.memory_mb())

    def end(self) -> None:
        self._ended.set()
        self.join()


def main() -> int:
    """Print a table and, if asked, draw it and write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.overload", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data/samples")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--times", type=float, default=4, help="of what it can do (default: 4)")
    parser.add_argument("--graph", type=Path, help="draw to this SVG or PNG file")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    texts = read_texts(options.data)
    search_bodies = (search_body(query) for query in queries(texts))
    write_bodies = _writes(segments(texts))
    with tempfile.TemporaryDirectory() as folder, servers.service(Path(folder)) as server:
        _capacity(server, "/embed", write_bodies, 1, MEDIA_ITEMS)
        console.print("Measuring what it can do …", style="dim")
        can_search = _capacity(server, "/search", search_bodies, 32, 2000)
        can_write = _capacity(server, "/embed", write_bodies, 8, 60)
        rates = can_search * options.times / 2, can_write * options.times / 2
        console.print(
            f"It can answer {can_search:.0f} searches a second or store "
            f"{can_write * SEGMENTS_A_REQUEST:.0f} segments a second. Now it is asked for "
            f"{rates[0]:.0f} searches and {rates[1] * SEGMENTS_A_REQUEST:.0f} segments a second, "
            f"for {options.minutes:g} minutes …"
        )
        before_mb = server.memory_mb()
        arrivals = Arrivals(server.url, MOST_OPEN, TIMEOUT_S)
        memory = Memory(server)
        memory.start()
        arrivals.run(
            [
                Stream("search", "/search", search_bodies, rates[0]),
                Stream("write", "/embed", write_bodies, rates[1]),
            ],
            60 * options.minutes,
        )
        memory.end()
        afterwards = load(
            server.url, "/search", [json.loads(next(search_bodies)) for _ in range(50)], 1
        )
    bins = bins_of(arrivals.answers, memory.readings_mb)
    console.print(table_of(bins))
    console.print(
        f"{arrivals.unsent} requests were not sent since {MOST_OPEN} were open. Memory before: "
        f"{before_mb:.0f} MB, most: {max(memory.readings_mb):.0f} MB, at the end: "
        f"{memory.readings_mb[-1]:.0f} MB. A lone search afterwards: {afterwards.p50_ms:.0f} ms."
    )
    if options.json:
        options.json.write_text(json.dumps([as_json(each) for each in bins], indent=2) + "\n")
    if options.graph:
        draw(bins, can_search, rates[0], options.graph)
    bad = sum(
        count
        for each in bins
        for status, count in (each.searches + each.writes).items()
        if status not in (200, 429)
    )
    return 1 if bad else 0


def search_body(query: str) -> bytes:
    """A search for ten segments."""
    return json.dumps({"query": query, "top_k": 10}).encode()


def _writes(texts: Iterator[str]) -> Iterator[bytes]:
    media_item_id = 0
    while True:
        media_item_id = media_item_id % MEDIA_ITEMS + 1
        some = [{"id": i, "text": next(texts)} for i in range(SEGMENTS_A_REQUEST)]
        yield json.dumps(
            {"media_item_id": media_item_id, "embedding_type": "transcript", "segments": some}
        ).encode()


def _capacity(
    server: servers.Server, path: str, bodies: Iterator[bytes], clients: int, requests: int
) -> float:
    """Requests a second of clients that wait for their answers."""
    some = [json.loads(next(bodies)) for _ in range(requests)]
    return load(server.url, path, some, clients).requests_per_s


if __name__ == "__main__":
    sys.exit(main())
