"""The way to a GPU and back, with a stand-in for Faiss' GPU indices that keeps them in memory."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from storage_samples import MODEL, TRANSCRIPT, segment, store_segments, vectors_of

from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import IndexType, Search
from deployments.core.vectors import gpu, main_part_builds, main_part_types
from deployments.core.vectors.index_policy import IndexPolicy, Limits

SMALL = Limits(least_rows=100, fresh_work=50 * 48)


class FakeGpuIndex:
    """Serves one thread at a time, as a real one must be used, and can't be changed."""

    def __init__(self, index: Any) -> None:
        self.inner = index
        self.nlist = getattr(index, "nlist", None)
        self._busy = threading.Lock()
        self.searches = 0

    def search(self, queries: Any, count: int, params: Any = None) -> Any:
        assert count <= gpu.MOST_RESULTS
        assert self._busy.acquire(blocking=False), "two threads at once"
        try:
            self.searches += 1
            return self.inner.search(queries, count, params=params)
        finally:
            self._busy.release()


@pytest.fixture(autouse=True)
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "GpuIndex", FakeGpuIndex, raising=False)
    monkeypatch.setattr(
        faiss,
        "index_cpu_to_gpu",
        lambda _resources, _device, index: FakeGpuIndex(faiss.clone_index(index)),
        raising=False,
    )
    monkeypatch.setattr(
        faiss, "index_gpu_to_cpu", lambda index: faiss.clone_index(index.inner), raising=False
    )
    monkeypatch.setattr(gpu, "_shared", [])
    monkeypatch.setattr(main_part_types, "CANDIDATES", dict.fromkeys(IndexType, 4))
    monkeypatch.setattr(main_part_builds, "_WORTH_KEEPING_S", 0.0)
    return


@pytest.mark.parametrize("kind", [IndexType.FLAT, IndexType.IVF])
def test_flat_and_ivf_main_parts_live_there(folder: Path, kind: IndexType) -> None:
    policy = IndexPolicy({TRANSCRIPT: kind}, SMALL)
    queries = vectors_of([f"text {i}" for i in range(20)])
    with SegmentIndex.open(folder, MODEL, policy=policy) as index:
        for first in (0, 200):
            segments = [segment(i, f"text {i}") for i in range(first, first + 200)]
            store_segments(index, first, *segments)
            assert index.wait_for_builds(60)
            main = index._published.current.snapshots[TRANSCRIPT].main
            assert main is not None
            assert isinstance(main.index, FakeGpuIndex)
            assert main.type is kind
            assert len(main) == first + 200
        readers = [
            threading.Thread(target=index.search, args=([Search(TRANSCRIPT, 5)] * 20, queries))
            for _ in range(4)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert main.index.searches >= 5
        some, exact = (
            [
                [(hit.cosine, hit.sequence) for hit in hits]
                for hits in index.search([Search(TRANSCRIPT, 5, exact=exact)] * 20, queries)
            ]
            for exact in (False, True)
        )
        assert sum(len(set(a) & set(b)) for a, b in zip(some, exact, strict=True)) >= 50
        if kind is IndexType.FLAT:
            assert some == exact
    kept = list(folder.glob("*_main_index.faiss"))
    assert len(kept) == (kind is IndexType.IVF)
    for path in kept:
        assert isinstance(
            faiss.downcast_index(faiss.read_index(str(path)).index), faiss.IndexIVFScalarQuantizer
        )
    with SegmentIndex.open(folder, MODEL, policy=policy) as index:
        assert index.wait_for_builds(60)
        main = index._published.current.snapshots[TRANSCRIPT].main
        assert main is not None
        assert isinstance(main.index, FakeGpuIndex)


def test_other_types_stay_on_the_cpu(folder: Path) -> None:
    with SegmentIndex.open(
        folder, MODEL, policy=IndexPolicy({TRANSCRIPT: IndexType.PQ}, SMALL)
    ) as index:
        store_segments(index, 1, *(segment(i) for i in range(200)))
        assert index.wait_for_builds(60)
        main = index._published.current.snapshots[TRANSCRIPT].main
        assert main is not None
        assert isinstance(main.index, faiss.IndexPQFastScan)


def test_more_results_than_a_gpu_gives_are_scanned(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "MOST_RESULTS", 8)
    with SegmentIndex.open(
        folder, MODEL, policy=IndexPolicy({TRANSCRIPT: IndexType.FLAT}, SMALL)
    ) as index:
        store_segments(index, 1, *(segment(i) for i in range(300)))
        assert index.wait_for_builds(60)
        (hits,) = index.search([Search(TRANSCRIPT, 20)], vectors_of(["x"]))
        (exact,) = index.search([Search(TRANSCRIPT, 20, exact=True)], vectors_of(["x"]))
        assert hits == exact
        assert np.all(np.diff([hit.cosine for hit in hits]) <= 0)
