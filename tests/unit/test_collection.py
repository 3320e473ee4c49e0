import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_samples import random_units, unit

from deployments.core.segments import Vectors
from deployments.core.vectors import collection as collection_module
from deployments.core.vectors.collection import Collection, Snapshot
from deployments.core.vectors.exact_search import cosines_of, error_bound

NONE = np.empty(0, np.int64)


def filled(vectors: Vectors, first: int = 1) -> Collection:
    collection = Collection(vectors.shape[1])
    collection.change(NONE, np.arange(first, first + len(vectors)), vectors)
    return collection


def remove(collection: Collection, *sequences: int) -> Snapshot:
    dimension = collection.snapshot.vectors.shape[1]
    nothing = np.empty((0, dimension), np.float32)
    return collection.change(np.array(sequences, np.int64), NONE, nothing)


def brute_force(
    vectors: Vectors, sequences: list[int], query: Vectors, count: int
) -> list[tuple[float, int]]:
    """Exactly rounded cosines by plain Python, ties by sequence number."""
    scored = []
    for row, seq in zip(vectors.tolist(), sequences, strict=True):
        wanted = query.tolist()
        dot = math.fsum(a * b for a, b in zip(row, wanted, strict=True))
        norms = math.fsum(a * a for a in row) * math.fsum(b * b for b in wanted)
        scored.append((dot / math.sqrt(norms), seq))
    return sorted(scored, key=lambda each: (-each[0], each[1]))[:count]


def answers(snapshot: Snapshot, queries: Vectors, count: int) -> list[list[tuple[float, int]]]:
    return [
        list(zip(cosines.tolist(), sequences.tolist(), strict=True))
        for cosines, sequences in snapshot.search(queries, count)
    ]


@pytest.mark.parametrize("dimension", [1, 3, 16, 37, 384])
@pytest.mark.parametrize("queries", [1, 2, 33])
def test_finds_what_brute_force_finds(dimension: int, queries: int) -> None:
    vectors = random_units(200, dimension)
    wanted = random_units(queries, dimension, seed=1)
    found = answers(filled(vectors).snapshot, wanted, 7)
    for query, hits in zip(wanted, found, strict=True):
        expected = brute_force(vectors, list(range(1, 201)), query, 7)
        assert [cosine for cosine, _ in hits] == pytest.approx([c for c, _ in expected], abs=1e-13)
        if dimension > 1:  # in one dimension all rows tie within rounding of 1
            assert [seq for _, seq in hits] == [seq for _, seq in expected]


def test_the_same_vector_has_a_cosine_of_exactly_one() -> None:
    vectors = random_units(300, 384)
    for hits, seq in zip(answers(filled(vectors).snapshot, vectors, 1), range(1, 301), strict=True):
        assert hits == [(1.0, seq)]


@pytest.mark.parametrize("count", [1, 5, 399, 400, 401, 699, 700, 5000])
def test_hundreds_of_ties_are_ordered_by_sequence_number(count: int) -> None:
    query = random_units(1, seed=5)
    near = unit(query[0] + 0.1 * random_units(1, seed=6)[0])
    vectors = random_units(700)
    tied = np.random.default_rng(7).permutation(700)[:400]
    vectors[tied] = near
    found = answers(filled(vectors).snapshot, query, count)[0]
    expected = brute_force(vectors, list(range(1, 701)), query[0], count)
    assert [seq for _, seq in found] == [seq for _, seq in expected]
    assert len({cosine for cosine, _ in found[:400]}) == 1


def test_rows_that_float32_cannot_tell_apart_are_ranked_exactly() -> None:
    query = random_units(1, 384, seed=1)
    vectors = np.repeat(query, 200, axis=0)
    rng = np.random.default_rng(2)
    # Each row differs from the query by one step of float32 in a few places.
    for row in vectors:
        places = rng.integers(0, 384, 3)
        row[places] = np.nextafter(row[places], np.float32(rng.choice([-1, 1])))
    found = answers(filled(vectors).snapshot, query, 50)[0]
    exact = cosines_of(vectors, query[0])
    order = np.argsort(-exact, kind="stable")[:50]
    assert found == [(exact[row], row + 1) for row in order]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_answer_depends_neither_on_the_batch_nor_on_history(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    rows = data.draw(st.integers(1, 400))
    rng = np.random.default_rng(seed)
    pool = random_units(data.draw(st.integers(1, rows)), seed=seed)  # so that many rows tie
    vectors = pool[rng.integers(0, len(pool), rows)]
    sequences = np.cumsum(rng.integers(1, 4, rows))
    count = data.draw(st.integers(1, rows + 2))
    dead = sequences[rng.random(rows) < data.draw(st.sampled_from([0.0, 0.3, 0.9]))]

    grown = Collection(16)
    for start in range(0, rows, 37):
        grown.change(NONE, sequences[start : start + 37], vectors[start : start + 37])
    for seq in dead:
        grown.change(np.array([seq]), NONE, vectors[:0])
    fresh = Collection(16)
    kept = ~np.isin(sequences, dead)
    fresh.change(NONE, sequences[kept], vectors[kept])

    queries = np.concatenate([pool[:2], random_units(3, seed=seed + 1)])
    together = answers(grown.snapshot, queries, count)
    assert len(grown.snapshot) == kept.sum()
    assert together == answers(fresh.snapshot, queries, count)
    for query, hits in zip(queries, together, strict=True):
        assert answers(grown.snapshot, query[None], count) == [hits]
        expected = brute_force(vectors[kept], sequences[kept].tolist(), query, count)
        assert [c for c, _ in hits] == pytest.approx([c for c, _ in expected], abs=1e-13)
        assert sorted(hits, key=lambda hit: (-hit[0], hit[1])) == hits


def test_compaction_keeps_every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_module, "_COMPACT_ROWS", 50)
    collection = filled(random_units(1000))
    queries = random_units(4, seed=3)
    for seq in range(1, 900, 2):
        before = collection.snapshot
        gone = answers(before, queries, 1000)
        snapshot = remove(collection, seq)
        expected = [[hit for hit in hits if hit[1] != seq] for hits in gone]
        if seq % 100 == 1:
            assert answers(snapshot, queries, 1000) == expected
            assert answers(before, queries, 1000) == gone
        assert len(snapshot.dead) <= 1000 * 0.1 + 1
    assert len(collection.snapshot) == 550
    assert collection.snapshot.live_sequences().tolist() == [
        seq for seq in range(1, 1001) if seq > 900 or seq % 2 == 0
    ]


def test_blocks_hold_the_live_rows_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_module, "_BLOCK_ROWS", 7)
    vectors = random_units(40)
    snapshot = remove(filled(vectors), 1, 7, 8, 40)
    blocks = list(snapshot.blocks())
    kept = [seq for seq in range(1, 41) if seq not in (1, 7, 8, 40)]
    assert np.concatenate([seqs for seqs, _ in blocks]).tolist() == kept
    assert np.array_equal(np.concatenate([rows for _, rows in blocks]), vectors[np.array(kept) - 1])


def test_a_snapshot_never_changes() -> None:
    vectors = random_units(3000)
    collection = filled(vectors[:10])
    old = collection.snapshot
    before = answers(old, vectors[:3], 20)
    for start in range(10, 3000, 130):
        collection.change(NONE, np.arange(start + 1, start + 131), vectors[start : start + 130])
    remove(collection, 1, 2, 3)
    assert answers(old, vectors[:3], 20) == before
    assert old.live_sequences().tolist() == list(range(1, 11))


def test_readers_see_whole_changes_only() -> None:
    # Every change replaces all rows by ten new ones with one and the same vector.
    vectors = random_units(200)
    collection = filled(np.repeat(vectors[:1], 10, axis=0))
    wrong: list[object] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            snapshot = collection.snapshot
            ((cosines, sequences),) = snapshot.search(vectors[:1], 100)
            first = sequences[0]
            if sequences.tolist() != list(range(first, first + 10)) or len(set(cosines)) != 1:
                wrong.append((cosines, sequences))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for step in range(1, 80):
        added = np.arange(step * 10 + 1, step * 10 + 11)
        collection.change(added - 10, added, np.repeat(vectors[step : step + 1], 10, axis=0))
    ended.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_an_empty_collection_finds_nothing() -> None:
    collection = Collection(16)
    assert answers(collection.snapshot, random_units(2), 3) == [[], []]
    collection.change(NONE, np.array([4]), random_units(1))
    assert answers(remove(collection, 4), random_units(2), 3) == [[], []]
    assert len(collection.snapshot) == 0


def test_many_queries_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    collection = filled(random_units(300))
    queries = random_units(20, seed=2)
    at_once = answers(collection.snapshot, queries, 5)
    monkeypatch.setattr("deployments.core.vectors.exact_search._SCORES_BYTES", 3 * 4 * 300)
    monkeypatch.setattr("deployments.core.vectors.exact_search._BLOCK_ROWS", 64)
    monkeypatch.setattr("deployments.core.vectors.exact_search._RESCORE_ROWS", 2)
    assert answers(collection.snapshot, queries, 5) == at_once


@pytest.mark.parametrize("dimension", [2, 384, 4096])
def test_float32_products_stay_within_the_bound(dimension: int) -> None:
    # All products have one sign and the lengths are off by as much as is let in: the worst case.
    row = np.full((1, dimension), (1 + 0.9e-6) / math.sqrt(dimension), np.float32)
    product = float((row @ row.T)[0, 0])
    assert abs(product - 1.0) <= error_bound(dimension)
    assert error_bound(384) < 3e-5


@pytest.mark.parametrize(
    ("sequences", "rows"), [([5], 1), ([3], 1), ([7, 7], 2), ([8, 7], 2), ([6, 7], 1)]
)
def test_rows_out_of_order_or_of_another_shape_are_refused(sequences: list[int], rows: int) -> None:
    collection = filled(random_units(5))
    before = collection.snapshot
    with pytest.raises(ValueError, match=r"must ascend|vectors are"):
        collection.change(NONE, np.array(sequences), random_units(rows))
    assert collection.snapshot is before


@pytest.mark.parametrize("seq", [0, 6, 99])
def test_removing_a_row_that_is_not_there_is_refused(seq: int) -> None:
    collection = filled(random_units(5))
    with pytest.raises(ValueError, match="isn't there"):
        remove(collection, seq)
    remove(collection, 2)
    with pytest.raises(ValueError, match="deleted before"):
        remove(collection, 2)
