"""Command line: measures this service and the baseline in turn, on the same texts."""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from tests.bench.load import Load, load
from tests.serve.service import ROOT, Service, free_ports

STORED = 2000
SEGMENTS_PER_REQUEST = 100
CONCURRENCY = (1, 8, 32, 128)
QUERIES_PER_ROUND = 200
ROUNDS = 3

console = Console()


def main() -> int:
    """Print a table and, if asked, JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with *.jsonl files that have a text")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    texts = _texts(options.data or ROOT / "data/samples")
    stored = list(itertools.islice(itertools.cycle(texts), STORED))
    queries = _queries(texts)
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        urls = {
            "service": running.enter_context(Service(folder / "service")).url,
            "baseline": running.enter_context(_baseline()),
        }
        rates = {name: _ingest(url, stored) for name, url in urls.items()}
        results: dict[tuple[str, int], list[Load]] = {}
        for concurrency in CONCURRENCY:
            for _ in range(ROUNDS):
                for name, url in urls.items():
                    bodies = [
                        {"query": next(queries), "top_k": 10} for _ in range(QUERIES_PER_ROUND)
                    ]
                    outcome = load(url, "/search", bodies, concurrency)
                    results.setdefault((name, concurrency), []).append(outcome)
    _print(rates, results)
    if options.json:
        document = {
            "ingest_segments_per_s": rates,
            "search": [
                {"name": name, "concurrency": concurrency, **_median(loads)}
                for (name, concurrency), loads in results.items()
            ],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _texts(folder: Path) -> list[str]:
    texts = []
    for file in sorted(folder.rglob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            text = json.loads(line).get("text")
            if isinstance(text, str) and text.strip():
                texts.append(text)
    return texts


def _queries(texts: list[str]) -> Iterator[str]:
    """Distinct eight-word queries, so that nothing is answered from a cache."""
    for start in itertools.count():
        for number, text in enumerate(texts):
            words = text.split()
            begin = start % max(1, len(words) - 8)
            yield f"{' '.join(words[begin : begin + 7])} {number + start * len(texts)}"


@contextmanager
def _baseline() -> Iterator[str]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "tests.bench.baseline:app", "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "warning"], cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"{url}/health/ready").raise_for_status()
                break
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _ingest(url: str, texts: list[str]) -> float:
    """Segments a second through /embed, one request after the other."""
    bodies = [
        {
            "media_item_id": start,
            "embedding_type": "transcript",
            "segments": [
                {"id": number, "text": f"{text} {start + number}"}
                for number, text in enumerate(texts[start : start + SEGMENTS_PER_REQUEST])
            ],
        }
        for start in range(0, len(texts), SEGMENTS_PER_REQUEST)
    ]
    outcome = load(url, "/embed", bodies, 1)
    return outcome.requests_per_s * SEGMENTS_PER_REQUEST


def _median(loads: list[Load]) -> dict[str, float]:
    return {
        "requests_per_s": statistics.median(each.requests_per_s for each in loads),
        "p50_ms": statistics.median(each.p50_ms for each in loads),
        "p99_ms": statistics.median(each.p99_ms for each in loads),
        "errors": sum(each.errors for each in loads),
    }


def _print(rates: dict[str, float], results: dict[tuple[str, int], list[Load]]) -> None:
    table = Table(title=f"Medians of {ROUNDS} interleaved rounds, {STORED} segments stored")
    for column in ("", "clients", "searches/s", "p50 ms", "p99 ms", "errors", "x baseline"):
        table.add_column(column, justify="right")
    for (name, concurrency), loads in results.items():
        median, other = _median(loads), _median(results["baseline", concurrency])
        ratio = median["requests_per_s"] / other["requests_per_s"]
        figures = [f"{median[key]:.0f}" for key in ("requests_per_s", "p50_ms", "p99_ms", "errors")]
        table.add_row(name, str(concurrency), *figures, f"{ratio:.2f}")
    console.print(table)
    ratio = rates["service"] / rates["baseline"]
    console.print(
        f"Ingest: {rates['service']:.0f} segments/s, baseline {rates['baseline']:.0f}, "
        f"{ratio:.2f} x"
    )


if __name__ == "__main__":
    sys.exit(main())
