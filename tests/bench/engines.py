"""Compares the engines that encode, in turn, in one run: cost, exactness, start, memory, batching.

Run with: python -m tests.bench.engines
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from deployments.core.encoding.batcher import TokenBatcher
from deployments.core.encoding.micro_batch import Priority
from deployments.core.encoding.text_encoder import TextEncoder, load_text_encoder
from tests.bench.texts import queries, read_texts, segments
from tests.serve.service import ROOT

MODEL = "all-MiniLM-L6-v2"
ENGINES = {
    "torch": {"backend": "torch"},
    "onnx": {"backend": "onnx"},
    "openvino": {"backend": "openvino"},
    "onnx int8": {"backend": "onnx", "precision": "int8"},
}
SEGMENT_WORDS = (15, 23)
"""Of segments of some 25 tokens."""
BUDGETS = (128, 256, 512, 1024, 2048)
PARTS = ("engines", "budget", "overlap", "start")
SEGMENTS_PER_CALL = 400
"""More than a window of the batcher's."""

READY = """
import json, sys, time, psutil
from deployments.core.settings import Settings
from deployments.encoder import Encoder
encoder = Encoder(Settings.load(json.loads(sys.argv[1])), None)
print("ready", flush=True)
cpu = time.process_time()
memory = psutil.Process().memory_full_info().pss / 1e6
print(json.dumps({"cpu": cpu, "memory": memory, "torch": "torch" in sys.modules}))
"""

console = Console()
Rows = dict[str, dict[str, float | str]]


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engines", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data/samples")
    parser.add_argument("--threads", type=int, default=1, help="of each engine (default: 1)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    texts = read_texts(options.data)
    encoders = {
        name: load_text_encoder(MODEL, device="cpu", threads=options.threads, **arguments)
        for name, arguments in ENGINES.items()
    }
    onnx = encoders["onnx"]
    if "engines" in options.only:
        for title, batches in workloads(texts).items():
            show(title, compare(encoders, batches, options.rounds))
    if "budget" in options.only:
        show("bulk by EMBEDDINGS_BATCH_TOKENS", by_budget(onnx, texts, options.rounds))
    if "overlap" in options.only:
        show("bulk, tokenised beside or in turn", by_overlap(onnx, texts, options.rounds))
    if "start" in options.only:
        show("an encoder's process", starts(options.threads, options.rounds))
    return 0


def show(title: str, rows: Rows) -> None:
    """A table with a column for each figure."""
    columns = list(next(iter(rows.values())))
    table = Table("", *columns, title=title, title_justify="left")
    for name, figures in rows.items():
        values = [value if isinstance(value, str) else f"{value:.3g}" for value in figures.values()]
        table.add_row(name, *values)
    console.print(table)


def workloads(texts: list[str]) -> dict[str, list[list[str]]]:
    """Batches of texts, by what they stand for."""
    asked = list(islice(queries(texts), 48))
    least, most = SEGMENT_WORDS
    said = [text for text in texts if least <= len(text.split()) <= most]
    return {
        "a lone query of 8 words": [[query] for query in asked],
        "queries of 8 words in batches of 16": _batches(asked, 16),
        "segments of 25 tokens in batches of 32": _batches(list(islice(segments(said), 64)), 32),
    }


def _batches(texts: list[str], size: int) -> list[list[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def compare(encoders: dict[str, TextEncoder], batches: list[list[str]], rounds: int) -> Rows:
    """Cost of a text in each engine, and how far its vectors are from torch's."""
    count = sum(map(len, batches))
    cpu: dict[str, list[float]] = {name: [] for name in encoders}
    wall: dict[str, list[float]] = {name: [] for name in encoders}
    vectors: dict[str, np.ndarray] = {}
    for _ in range(1 + rounds):
        for name, encoder in encoders.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            made = [encoder.encode(encoder.tokenize(batch, "document")) for batch in batches]
            cpu[name].append(1000 * (time.process_time() - cpu_began) / count)
            wall[name].append(1000 * (time.perf_counter() - began) / count)
            vectors[name] = np.concatenate(made)
    exact = vectors["torch"]
    return {
        name: {
            "CPU ms": statistics.median(cpu[name][1:]),
            "x torch": _median_ratio(cpu[name][1:], cpu["torch"][1:]),
            "wall ms": statistics.median(wall[name][1:]),
            "largest difference": f"{np.abs(vectors[name] - exact).max():.1e}",
            "smallest cosine": f"{(vectors[name] * exact).sum(axis=1).min():.5f}",
        }
        for name in encoders
    }


def by_budget(encoder: TextEncoder, texts: list[str], rounds: int) -> Rows:
    """Speed of bulk with each budget of tokens."""
    some = segments(texts)
    speeds: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
    cpu: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
    padding: dict[int, float] = {}
    for _ in range(rounds):
        for budget in BUDGETS:
            began = time.process_time()
            speed, padding[budget] = asyncio.run(_bulk(encoder, budget, _calls(some, 1), at_once=1))
            speeds[budget].append(speed)
            cpu[budget].append(1000 * (time.process_time() - began) / SEGMENTS_PER_CALL)
    return {
        str(budget): {
            "segments/s": statistics.median(speeds[budget]),
            "CPU ms": statistics.median(cpu[budget]),
            "CPU x 512": _median_ratio(cpu[budget], cpu[512]),
            "padding": f"{padding[budget]:.0%}",
        }
        for budget in BUDGETS
    }


def by_overlap(encoder: TextEncoder, texts: list[str], rounds: int) -> Rows:
    """Speed of bulk while the next call is tokenised beside, and without."""
    some = segments(texts)
    cases = {"in turn": 1, "next call tokenised beside": 2}
    speeds: dict[str, list[float]] = {name: [] for name in cases}
    tokenizing, encoding = [], []
    for _ in range(rounds):
        for name, at_once in cases.items():
            calls = _calls(some, 3)
            began = time.process_time()
            encoder.tokenize(calls[0], "document")
            tokenizing.append(1000 * (time.process_time() - began) / len(calls[0]))
            began = time.process_time()
            speed, _ = asyncio.run(_bulk(encoder, 512, calls, at_once))
            speeds[name].append(speed)
            encoding.append(1000 * (time.process_time() - began) / sum(map(len, calls)))
    return {
        name: {
            "segments/s": statistics.median(speeds[name]),
            "x in turn": _median_ratio(speeds[name], speeds["in turn"]),
            "tokenising CPU ms": statistics.median(tokenizing),
            "all CPU ms": statistics.median(encoding),
        }
        for name in cases
    }


def _calls(some: Iterator[str], count: int) -> list[list[str]]:
    return [list(islice(some, SEGMENTS_PER_CALL)) for _ in range(count)]


async def _bulk(
    encoder: TextEncoder, budget: int, calls: Sequence[list[str]], at_once: int
) -> tuple[float, float]:
    """Segments a second, and the part of the tokens that was padding."""
    batcher = TokenBatcher(encoder, max_batch_tokens=budget, max_queued_tokens=10**9)
    waiting = iter(calls)

    async def client() -> None:
        for texts in waiting:
            await batcher.encode(texts, "document", Priority.BULK)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(at_once)))
    seconds = time.perf_counter() - began
    await batcher.close()
    stats = batcher.stats()
    return sum(map(len, calls)) / seconds, 1 - stats.useful_tokens / stats.padded_tokens


def starts(threads: int, rounds: int) -> Rows:
    """From the start of a process until deployments/encoder.py could answer, and its memory."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ENGINES}
    for _ in range(rounds):
        for name, arguments in ENGINES.items():
            found[name].append(_start({**arguments, "threads": threads}))

    def median(name: str, figure: str) -> float:
        return statistics.median(start[figure] for start in found[name])

    return {
        name: {
            "ready s": median(name, "seconds"),
            "ready CPU s": median(name, "cpu"),
            "memory MB": median(name, "memory"),
            "loads torch": "yes" if found[name][0]["torch"] else "no",
        }
        for name in found
    }


def _start(arguments: dict[str, str | int]) -> dict[str, float]:
    settings = {
        "embedding_device": "cpu",
        "embedding_backend": arguments["backend"],
        "embedding_precision": arguments.get("precision", "float32"),
        "embeddings_encoder_threads": arguments["threads"],
    }
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-c", READY, json.dumps(settings)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    line = child.stdout.readline() if child.stdout else ""
    seconds = time.perf_counter() - began
    rest, _ = child.communicate(timeout=120)
    if line != "ready\n":
        raise SystemExit(f"an encoder with {settings} doesn't start")
    return {"seconds": seconds, **json.loads(rest)}


def _median_ratio(values: Sequence[float], base: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(values, base, strict=True))


if __name__ == "__main__":
    sys.exit(main())
