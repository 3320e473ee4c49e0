"""How long an index of 100,000 segments takes to open: from its checkpoint, and without one."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, ModelIdentity, Search, Segment, Upsert, Vectors
from deployments.core.vectors.checkpoint import path_of
from tests.crash.texts import sentences

MODEL = ModelIdentity("random vectors", "c4" * 32, 384)
PER_MEDIA_ITEM = 500
CHECKPOINT_LIMIT_S = 5.0
REBUILD_LIMIT_S = 20.0


def measure(segments: int) -> bool:
    """Fill a folder, open it both ways, print the times; whether they are within the limits."""
    with tempfile.TemporaryDirectory(prefix="recovery-") as name:
        folder = Path(name) / "index"
        query = random_units(1, seed=1)
        began = time.monotonic()
        with SegmentIndex.open(folder, MODEL) as index:
            fill(index, segments)
            expected = found(index, query)
            filled_s = time.monotonic() - began
            began = time.monotonic()
        print(f"{filled_s:6.2f} s to store {segments:,} segments")
        print(f"{time.monotonic() - began:6.2f} s to close, with a checkpoint of all")
        checkpoint_s = time_to_open(folder, query, expected)
        print(f"{checkpoint_s:6.2f} s to open from the checkpoint (limit {CHECKPOINT_LIMIT_S:g} s)")
        path_of(folder, EmbeddingType.TRANSCRIPT).unlink()
        rebuild_s = time_to_open(folder, query, expected)
        print(f"{rebuild_s:6.2f} s to open without a checkpoint (limit {REBUILD_LIMIT_S:g} s)")
    return checkpoint_s < CHECKPOINT_LIMIT_S and rebuild_s < REBUILD_LIMIT_S


def fill(index: SegmentIndex, segments: int) -> None:
    """Store that many segments, each with a vector of its own."""
    texts = sentences(1000, 0)
    for start in range(0, segments, PER_MEDIA_ITEM):
        count = min(PER_MEDIA_ITEM, segments - start)
        (result,) = index.apply(
            [
                Upsert(
                    EmbeddingType.TRANSCRIPT,
                    start,
                    tuple(Segment(i, f"{texts[i % 1000]} {start}", i, i + 3) for i in range(count)),
                    vectors=random_units(count, seed=start),
                    vector_positions=tuple(range(count)),
                )
            ]
        )
        assert getattr(result, "stored", None) == count, result


def time_to_open(folder: Path, query: Vectors, expected: list[tuple[int, float]]) -> float:
    """Seconds until the first search is answered, which has to be as expected."""
    forget_cached(folder)
    began = time.monotonic()
    with SegmentIndex.open(folder, MODEL) as index:
        hits = found(index, query)
        seconds = time.monotonic() - began
    assert hits == expected, (hits, expected)
    return seconds


def forget_cached(folder: Path) -> None:
    """Drop the files from the page cache, as after a reboot."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def found(index: SegmentIndex, query: Vectors) -> list[tuple[int, float]]:
    """Sequence numbers and cosines of the best hundred."""
    (hits,) = index.search([Search(EmbeddingType.TRANSCRIPT, 100)], query)
    return [(hit.sequence, hit.cosine) for hit in hits]


def random_units(rows: int, seed: int) -> Vectors:
    """Unit vectors of shape (rows, 384), float32."""
    vectors = np.random.default_rng(seed).standard_normal((rows, MODEL.dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
