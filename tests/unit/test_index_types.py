"""Every type of index against brute force: what may be missed is the best rows, nothing else."""

import itertools
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage_samples import random_units, unit

from deployments.core.segments import IndexType, Vectors
from deployments.core.vectors import collection as collection_module
from deployments.core.vectors import gpu, main_part_build, main_part_types
from deployments.core.vectors.collection import Collection, Snapshot
from deployments.core.vectors.exact_search import best_rows, cosines_of
from deployments.core.vectors.index_policy import Plan, deleted_main_rows
from deployments.core.vectors.recall import recall_at_10
from tests.bench.index_vectors import embedded, spread_like
from tests.serve.service import ROOT

TYPES = [IndexType.HNSW, IndexType.IVF, IndexType.RABITQ, IndexType.PQ, IndexType.FLAT]
NONE = np.empty(0, np.int64)


@pytest.fixture(autouse=True, scope="module")
def small_numbers() -> Iterator[None]:
    """So few candidates that a hundred rows are enough for a main part to be asked."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(main_part_types, "CANDIDATES", dict.fromkeys(IndexType, 4))
        patched.setattr(collection_module, "_COMPACT_ROWS", 40)
        yield


def build(snapshot: Snapshot, kind: IndexType, extends: bool = False, last: int = 0) -> Any:
    last = max(last, int(snapshot.sequences[-1]))
    return main_part_build.build(Plan(kind, extends), snapshot, 1, last, lambda _: None)


def filled(vectors: Vectors, kind: IndexType | None = None) -> Collection:
    collection = Collection(vectors.shape[1])
    collection.change(NONE, np.arange(1, len(vectors) + 1), vectors)
    if kind is not None:
        collection.adopt(build(collection.snapshot, kind))
    return collection


def check(snapshot: Snapshot, queries: Vectors, count: int) -> None:
    """What holds for every answer, whatever the main part names."""
    live = np.delete(np.arange(len(snapshot.sequences)), snapshot.dead)
    by_sequence = dict(zip(snapshot.sequences[live].tolist(), live.tolist(), strict=True))
    for query, (cosines, sequences) in zip(queries, snapshot.search(queries, count), strict=True):
        assert len(sequences) == len(set(sequences.tolist())) == min(count, len(live))
        rows = np.array([by_sequence[seq] for seq in sequences.tolist()], np.int64)
        assert np.array_equal(cosines, cosines_of(snapshot.vectors[rows], query))
        ranked = list(zip((-cosines).tolist(), sequences.tolist(), strict=True))
        assert ranked == sorted(ranked)
    exact = snapshot.search(queries, count, exact=True)
    true = best_rows(snapshot.vectors, snapshot.dead, queries, count)
    for (cosines, sequences), (best, rows) in zip(exact, true, strict=True):
        assert np.array_equal(cosines, best)
        assert np.array_equal(sequences, snapshot.sequences[rows])


CHANGES = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 120)),
    st.tuples(st.just("remove"), st.sampled_from([0.05, 0.3, 0.95, 1.0])),
    st.tuples(st.just("replace"), st.integers(1, 40)),
    st.tuples(st.just("build"), st.booleans()),
    st.tuples(st.just("build late"), st.integers(1, 50)),
    st.tuples(st.just("drop"), st.none()),
)


@pytest.mark.parametrize("kind", TYPES)
@given(
    changes=st.lists(CHANGES, max_size=8),
    seed=st.integers(0, 2**32 - 1),
    count=st.sampled_from([1, 3, 10, 200]),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_gives_live_rows_with_exact_scores(
    kind: IndexType, changes: list[tuple[str, Any]], seed: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    pool = random_units(150, seed=seed)  # so that some rows tie
    collection = filled(pool[rng.integers(0, 150, 160)], kind)
    numbers = itertools.count(1000)

    def change(removed: int, added: int) -> None:
        live = collection.snapshot.live_sequences()
        gone = np.sort(rng.choice(live, min(removed, len(live)), replace=False))
        sequences = np.array([next(numbers) for _ in range(added)], np.int64)
        collection.change(gone, sequences, pool[rng.integers(0, 150, added)])

    queries = np.concatenate([pool[:1], random_units(2, seed=seed + 1)])
    for name, value in changes:
        live = len(collection.snapshot)
        match name:
            case "add":
                change(0, value)
            case "remove":
                change(int(value * live), 0)
            case "replace":
                change(value, value)
            case "build" if live >= 64:
                extends = value and collection.snapshot.main is not None
                collection.adopt(build(collection.snapshot, kind, extends))
            case "build late" if live >= 64:
                # What changes while it is built isn't in it.
                before = collection.snapshot
                change(value, value)
                collection.adopt(build(before, kind))
            case "drop":
                collection.adopt(None)
        check(collection.snapshot, queries, count)
        assert deleted_main_rows(collection.snapshot) >= 0


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("dimension", [2, 15, 48])
def test_finds_what_is_nearest_in_any_dimension(kind: IndexType, dimension: int) -> None:
    vectors = random_units(600, dimension)
    snapshot = filled(vectors, kind).snapshot
    found = np.array([cosines[0] for cosines, _ in snapshot.search(vectors[::20], 1)])
    if dimension > 2:  # in two, one bit for each tells four directions apart
        assert np.mean(found > 0.99) >= 0.9
    check(snapshot, vectors[:3], 10)


@pytest.mark.parametrize("kind", TYPES)
def test_a_main_part_without_live_rows_leaves_nothing_out(kind: IndexType) -> None:
    vectors = random_units(300)
    collection = filled(vectors[:200], kind)
    collection.change(NONE, np.arange(500, 600), vectors[200:])
    collection.change(np.arange(1, 201), NONE, vectors[:0])
    assert deleted_main_rows(collection.snapshot) == 200
    check(collection.snapshot, vectors[:2], 100)


@pytest.mark.parametrize("kind", TYPES)
def test_deleted_rows_near_the_query_are_made_up_for(kind: IndexType) -> None:
    # All that is near the query was deleted, so the first candidates are useless.
    query = random_units(1, seed=3)
    near = unit(query[0] + 0.05 * random_units(60, seed=4))
    far = random_units(400, seed=5)
    collection = filled(np.concatenate([near, far]), kind)
    collection.change(np.arange(1, 61), NONE, far[:0])
    check(collection.snapshot, query, 10)


def test_a_flat_main_part_with_rounded_scores_stays_exact() -> None:
    # As on a GPU: more rows tie than candidates are asked for.
    vectors = np.repeat(random_units(3, 64), 200, axis=0)
    snapshot = filled(vectors, IndexType.FLAT).snapshot
    assert isinstance(snapshot.main.index, faiss.IndexFlatIP)
    for one, other in zip(
        snapshot.search(vectors[::200], 5), snapshot.search(vectors[::200], 5, True), strict=True
    ):
        assert np.array_equal(one[1], other[1])


@pytest.mark.parametrize("kind", [each for each in TYPES if each is not IndexType.FLAT])
def test_recall_on_vectors_of_texts(kind: IndexType, real: tuple[Vectors, Vectors]) -> None:
    vectors, queries = real
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(main_part_types, "CANDIDATES", dict.fromkeys(IndexType, 100))
        snapshot = filled(vectors[:4000], kind).snapshot
        found = [set(seqs.tolist()) for _, seqs in snapshot.search(queries, 10)]
        true = [set(seqs.tolist()) for _, seqs in snapshot.search(queries, 10, exact=True)]
        recall = sum(len(a & b) for a, b in zip(found, true, strict=True)) / (10 * len(queries))
        assert recall >= 0.9
        own = recall_at_10(snapshot, lambda _: None)
        assert own is not None
        assert 0.85 <= own <= 1.0


@pytest.fixture(scope="module")
def real() -> tuple[Vectors, Vectors]:
    """Vectors of sample texts and of as many more that are spread like them, and queries."""
    vectors, queries = embedded(ROOT / "data/samples", 150)
    return spread_like(vectors, 4000), queries


def test_recall_is_that_of_the_main_part() -> None:
    collection = filled(random_units(300))
    assert recall_at_10(collection.snapshot, lambda _: None) is None
    collection.adopt(build(collection.snapshot, IndexType.FLAT))
    assert recall_at_10(collection.snapshot, lambda _: None) == 1.0

    class Blind:
        def search(self, queries: Vectors, count: int, params: object) -> tuple[object, Any]:
            # The same rows for every query: whatever else is near isn't found.
            return None, np.tile(np.arange(count), (len(queries), 1))

    part = build(collection.snapshot, IndexType.FLAT)
    collection.adopt(type(part)(IndexType.PQ, Blind(), part.sequences, 300, 1, 300, 0.0))
    share = recall_at_10(collection.snapshot, lambda _: None)
    assert share is not None
    assert share < 0.5


def test_without_a_gpu_nothing_is_moved() -> None:
    if gpu.available():
        pytest.skip("there is a GPU")
    index = faiss.IndexFlatIP(4)
    assert gpu.moved(IndexType.FLAT, index) is index
    assert gpu.moved_back(index) is index
    assert not gpu.takes(IndexType.IVF)


def test_a_build_can_be_given_up_at_any_step() -> None:
    snapshot = filled(random_units(3000)).snapshot

    class GivenUp(BaseException):
        pass

    for kind in TYPES:
        for step in range(3 if kind in (IndexType.IVF, IndexType.HNSW) else 1):
            left = itertools.count(step, -1)

            def progress(share: float, left: Iterator[int] = left) -> None:
                assert 0.0 <= share <= 1.0
                if next(left) == 0:
                    raise GivenUp

            with pytest.raises(GivenUp):
                main_part_build.build(Plan(kind, False), snapshot, 1, 3000, progress)


def test_no_index_is_made_of_auto() -> None:
    with pytest.raises(ValueError, match="auto is no type"):
        main_part_types.trained(IndexType.AUTO, random_units(100), 100, lambda _: None)
