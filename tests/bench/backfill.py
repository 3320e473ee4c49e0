"""Measures a backfill as a Ray job beside raw encoding of the same texts, and kills it once."""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deployments.metrics import PUBLISH_PERIOD_S
from tests.bench.ceilings import Ceilings
from tests.bench.texts import read_texts
from tests.serve.jobs import BackfillJob, exported, summary
from tests.serve.prometheus import wait_for_metrics
from tests.serve.service import ROOT, Service

MOST_TEXTS = 6000
SEGMENTS_PER_ITEM = 200
POLL_S = 0.05
TIMEOUT_S = 300.0

console = Console(width=None if sys.stdout.isatty() else 130)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the backfill, and how fast its texts are encoded by SentenceTransformer.encode."""

    name: str
    segments: int
    segments_per_s: float
    raw_segments_per_s: float


def main() -> int:
    """Print the figures; the exit code is 1 if a segment is missing, doubled or another one."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.backfill", description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT / "data/samples",
        help="folder with *.jsonl files whose lines have a text (default: the samples)",
    )
    texts = read_texts(parser.parse_args().data)[:MOST_TEXTS]
    ceilings = Ceilings()
    with tempfile.TemporaryDirectory() as folder, Service(Path(folder) / "service") as service:
        source = _write(Path(folder), texts)
        encoded = _encoded(service, 1)
        parts = _killed_once(service, ceilings, source, texts)
        again = _encoded(service, encoded + len(texts)) - encoded - len(texts)
        wrong = _differences(service, texts)
    table = Table(title=f"{len(texts):,} distinct segments, killed once", box=None)
    for column in ("", "segments", "segments/s", "raw encode/s", "ratio"):
        table.add_column(column, justify="right")
    for part in parts:
        ratio = part.segments_per_s / part.raw_segments_per_s
        table.add_row(
            part.name,
            f"{part.segments:,}",
            f"{part.segments_per_s:.0f}",
            f"{part.raw_segments_per_s:.0f}",
            f"{ratio:.2f}",
        )
    console.print(table)
    console.print(f"{again} segments were encoded twice.")
    console.print(f"{wrong} segments are missing, doubled or not as they were sent.")
    return 1 if wrong else 0


def _write(folder: Path, texts: list[str]) -> Path:
    source = folder / "segments.jsonl"
    with source.open("w", encoding="utf-8") as lines:
        for number, text in enumerate(texts):
            media_item = number // SEGMENTS_PER_ITEM
            lines.write(json.dumps({"media_item_id": media_item, "id": number, "text": text}))
            lines.write("\n")
    return source


def _killed_once(
    service: Service, ceilings: Ceilings, source: Path, texts: list[str]
) -> list[Part]:
    """Raw encoding of one half, a job that is killed, raw encoding of the other, the same job."""
    half = len(texts) // 2
    arguments = [str(source), "--json", "--progress", str(source.with_suffix(".progress"))]
    raw = ceilings.encode_segments_per_s(texts[:half])
    job = BackfillJob(service, *arguments)
    began, first = _wait_for(service, 1)
    ended, last = _wait_for(service, half)
    job.kill()
    code, log = job.wait()
    assert code == 1, log
    parts = [Part("until the kill", last - first, (last - first) / (ended - began), raw)]

    stored = _stored(service)
    raw = ceilings.encode_segments_per_s(texts[half:])
    code, log = BackfillJob(service, *arguments).wait()
    assert code == 0, log
    done = summary(log)
    rest = _stored(service) - stored
    parts.append(Part("afterwards", rest, rest / done["seconds"], raw))
    return parts


def _wait_for(service: Service, count: int) -> tuple[float, int]:
    """The time when so many are stored, and how many they are then."""
    deadline = time.monotonic() + TIMEOUT_S
    while (stored := _stored(service)) < count:
        assert time.monotonic() < deadline, f"{stored} of {count} are stored"
        time.sleep(POLL_S)
    return time.monotonic(), stored


def _encoded(service: Service, at_least: int) -> int:
    """How many texts the encoder has encoded, once its metrics say that it is so many."""
    name = "embeddings_encoder_rows_total"
    wait_for_metrics(service, lambda found: (found.value(name) or 0) >= at_least)
    # What came last is published, too.
    time.sleep(2 * PUBLISH_PERIOD_S)
    metrics = wait_for_metrics(service, lambda found: (found.value(name) or 0) >= at_least)
    return int(metrics.value(name) or 0)


def _stored(service: Service) -> int:
    return service.get("/stats").json()["transcript_vectors"]


def _differences(service: Service, texts: list[str]) -> int:
    found: dict[int, list[tuple[int, str]]] = {}
    for each in exported(service):
        found.setdefault(each["segment_id"], []).append((each["media_item_id"], each["text"]))
    expected = {number: [(number // SEGMENTS_PER_ITEM, text)] for number, text in enumerate(texts)}
    return sum(found.get(name) != expected.get(name) for name in found.keys() | expected.keys())


if __name__ == "__main__":
    sys.exit(main())
