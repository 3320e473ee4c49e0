"""Command line: measures each type of index, one at a time, in a process of its own.

What is measured is SegmentIndex, texts of the hits included, without Ray and HTTP. With texts, the
vectors are those of all-MiniLM-L6-v2, and as many more that are spread like them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import (
    EmbeddingType,
    IndexType,
    ModelIdentity,
    Search,
    Segment,
    Upsert,
    Vectors,
)
from deployments.core.vectors.index_policy import IndexPolicy
from tests.bench.index_vectors import embedded, plain, spread_like

KIND = EmbeddingType.TRANSCRIPT
TYPES = [kind.value for kind in IndexType]
DIMENSION = 384
QUERIES = 100
ROUNDS = 3
PER_WRITE = 1000
MOST_TEXTS = 20_000
COLUMNS = {
    "build_s": "build s",
    "restart_s": "restart s",
    "ready_s": "fast after s",
    "p50_ms": "p50 ms",
    "cpu_ms": "cpu ms",
    "p50_ms_of_32": "of 32 ms",
    "recall_at_10": "recall",
    "memory_ratio": "memory x",
    "growth": "10 x rows",
}

console = Console()


def main() -> int:
    """Print a table and, if asked, JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--types", nargs="+", default=TYPES, choices=TYPES)
    parser.add_argument("--data", type=Path, help="folder with *.jsonl files that have a text")
    parser.add_argument("--vectors", type=Path, help="where to keep their vectors, as .npz")
    parser.add_argument("--folder", type=Path, help="where to keep the filled indices")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step](options.folder, IndexType(options.types[0]))))
        return 0
    with tempfile.TemporaryDirectory(prefix="index-types-") as temporary:
        folder = options.folder or Path(temporary)
        real = _real(options.data, options.vectors) if options.data or options.vectors else None
        results: list[dict[str, Any]] = []
        for rows in sorted(options.rows):
            place = folder / f"{'plain' if real is None else 'real'}-{rows}"
            if not place.exists():
                fill(place, rows, real)
            for kind in options.types:
                result = {"rows": rows, "configured": kind}
                for step in STEPS:
                    result |= _in_a_process_of_its_own(step, place, kind)
                results.append(result)
                console.print(result)
    _add_growth(results)
    _print(results, "plain random vectors" if real is None else "vectors of texts")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def _in_a_process_of_its_own(step: str, place: Path, kind: str) -> dict[str, Any]:
    command = [sys.executable, "-m", __spec__.name, "--step", step, "--folder", str(place)]
    done = subprocess.run(
        [*command, "--types", kind], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _real(data: Path | None, kept: Path | None) -> tuple[Vectors, Vectors]:
    if kept is not None and kept.exists():
        with np.load(kept) as arrays:
            return arrays["vectors"], arrays["queries"]
    if data is None:
        raise SystemExit(f"{kept} doesn't exist; --data names texts to make it from")
    vectors, queries = embedded(data, MOST_TEXTS)
    if kept is not None:
        np.savez(kept, vectors=vectors, queries=queries)
    return vectors, queries


def fill(place: Path, rows: int, real: tuple[Vectors, Vectors] | None) -> None:
    """Make an index folder with a checkpoint of so many rows, and queries beside it."""
    if real is None:
        vectors, queries = plain(rows, DIMENSION), plain(QUERIES, DIMENSION, seed=1)
    else:
        vectors, queries = spread_like(real[0], rows), real[1]
        queries = queries[:: max(1, len(queries) // QUERIES)][:QUERIES]
    place.mkdir(parents=True)
    with SegmentIndex.open(place / "index", _model(vectors.shape[1])) as index:
        for start in range(0, rows, PER_WRITE):
            block = vectors[start : start + PER_WRITE]
            segments = tuple(Segment(i, f"text {start + i}", i, i + 3) for i in range(len(block)))
            positions = tuple(range(len(block)))
            (result,) = index.apply(
                [Upsert(KIND, start, segments, vectors=block, vector_positions=positions)]
            )
            assert getattr(result, "stored", None) == len(block), result
    np.save(place / "queries.npy", queries)


def build(place: Path, kind: IndexType) -> dict[str, Any]:
    """Open a filled folder for the first time with a type of index."""
    for kept in (place / "index").glob("*_main_index.faiss"):
        kept.unlink()
    with _opened(place, kind) as index:
        build_s = _seconds(lambda: _wait_until_built(index))
        index.wait_for_builds(3600)  # until it is kept
    return {"build_s": build_s}


def measure(place: Path, kind: IndexType) -> dict[str, Any]:
    """Open it again, and search."""
    queries = np.load(place / "queries.npy")
    process = psutil.Process()
    before = process.memory_info().rss
    began = time.monotonic()
    with _opened(place, kind) as index:
        restart_s = time.monotonic() - began
        _wait_until_built(index)
        ready_s = time.monotonic() - began
        index.wait_for_builds(600)
        memory = process.memory_info().rss - before
        rows, state = index.stats().vectors[KIND], index.stats().indices[KIND]
        return {
            "type": state.type.value,
            "restart_s": restart_s,
            "ready_s": ready_s,
            "p50_ms": _p50_ms(index, queries, 1),
            "cpu_ms": _p50_ms(index, queries, 1, time.thread_time),
            "p50_ms_of_32": _p50_ms(index, queries, 32) / 32,
            "recall_at_10": _recall(index, queries),
            "own_recall_at_10": state.recall_at_10,
            "memory_ratio": memory / (rows * queries.shape[1] * 4),
        }


STEPS = {"build": build, "measure": measure}


def _opened(place: Path, kind: IndexType) -> SegmentIndex:
    dimension = np.load(place / "queries.npy").shape[1]
    return SegmentIndex.open(place / "index", _model(dimension), policy=IndexPolicy({KIND: kind}))


def _wait_until_built(index: SegmentIndex) -> None:
    while (state := index.stats().indices[KIND]).building or (
        state.main_rows == 0 and not index.wait_for_builds(0)
    ):
        time.sleep(0.01)


def _p50_ms(
    index: SegmentIndex,
    queries: Vectors,
    batch: int,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Median time of a search; by the thread's own clock it doesn't count what others use."""
    search = Search(KIND, 10)
    times = []
    for _ in range(ROUNDS):
        for start in range(0, len(queries) - batch + 1, batch):
            some = queries[start : start + batch]
            times.append(_seconds(lambda some=some: index.search([search] * batch, some), clock))
    return statistics.median(times) * 1000


def _recall(index: SegmentIndex, queries: Vectors) -> float:
    found = 0
    for query in queries:
        guessed, best = (
            {hit.sequence for hit in index.search([Search(KIND, 10, exact=exact)], query[None])[0]}
            for exact in (False, True)
        )
        found += len(guessed & best)
    return found / (10 * len(queries))


def _seconds(work: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> float:
    began = clock()
    work()
    return clock() - began


def _model(dimension: int) -> ModelIdentity:
    return ModelIdentity("vectors to measure", "be" * 32, dimension)


def _add_growth(results: list[dict[str, Any]]) -> None:
    for result in results:
        smaller = next(
            (
                other
                for other in results
                if other["configured"] == result["configured"]
                and other["rows"] * 10 == result["rows"]
            ),
            None,
        )
        result["growth"] = smaller and result["p50_ms"] / smaller["p50_ms"]


def _print(results: list[dict[str, Any]], vectors: str) -> None:
    table = Table(title=f"{vectors}, {os.cpu_count()} cores, k = 10", box=None)
    for column in ("rows", "setting", "type", *COLUMNS.values()):
        table.add_column(column, justify="right", no_wrap=column in ("rows", "setting", "type"))
    for result in results:
        figures = ["" if result[key] is None else f"{result[key]:.2f}" for key in COLUMNS]
        table.add_row(f"{result['rows']:,}", result["configured"], result["type"], *figures)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
