"""Nearness in surroundings: against plain Python, and what it is for."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_samples import DIMENSION, random_units, unit

from deployments.core.search import surroundings
from deployments.core.search.media_orders import MediaOrder
from deployments.core.search.surroundings import REFERENCES, nearness
from deployments.core.segments import Vectors
from deployments.core.vectors.collection import Collection, Snapshot


def snapshot_of(vectors: Vectors, dead: Sequence[int] = ()) -> Snapshot:
    """Rows 10, 20, … with these vectors, those at the positions in `dead` deleted."""
    collection = Collection(vectors.shape[1])
    sequences = np.arange(1, len(vectors) + 1, dtype=np.int64) * 10
    collection.change(np.empty(0, np.int64), sequences, vectors)
    return collection.change(
        sequences[list(dead)], np.empty(0, np.int64), np.empty((0, vectors.shape[1]), np.float32)
    )


def order_of(timed: Sequence[int], untimed: Sequence[int] = ()) -> MediaOrder:
    return MediaOrder(np.array(timed, np.int64), np.array(sorted([*timed, *untimed]), np.int64))


def expected(
    vectors: Mapping[int, Vectors], order: MediaOrder, sequence: int, query: Vectors
) -> tuple[float, float]:
    """How near a row is to the query in its surroundings, and how near to other things."""
    timed, own = order.timed.tolist(), set(order.rows.tolist())
    around = [sequence]
    if sequence in timed:
        place = timed.index(sequence)
        around = timed[max(0, place - 2) : place + 3]
    total = sum(vectors[each].astype(float) for each in around)
    joined = vectors[sequence] + 0.5 * total / np.linalg.norm(total)
    joined = joined / np.linalg.norm(joined)
    others = sorted(float(joined @ vectors[each]) for each in vectors if each not in own)[-8:]
    common = sum(others) / len(others) if others else 0.0
    return float(query @ joined), common


@settings(max_examples=100)
@given(st.data())
def test_it_is_what_the_formula_says(data: st.DataObject) -> None:
    media = [data.draw(st.integers(0, 3), label="media item") for _ in range(16)]
    has_time = [data.draw(st.booleans(), label="has time") for _ in media]
    vectors = random_units(len(media), seed=data.draw(st.integers(0, 1000)))
    dead = data.draw(st.sets(st.integers(0, 15), max_size=14), label="deleted")
    snapshot = snapshot_of(vectors, sorted(dead))
    alive = [i for i in range(len(media)) if i not in dead]
    orders: dict[int, MediaOrder] = {}
    for name in set(media):
        rows = [i for i in alive if media[i] == name]
        timed = data.draw(st.permutations([(i + 1) * 10 for i in rows if has_time[i]]))
        order = order_of(timed, [(i + 1) * 10 for i in rows if not has_time[i]])
        orders |= {(i + 1) * 10: order for i in rows}
    of_row = {(i + 1) * 10: vectors[i] for i in alive}
    sequences = data.draw(st.permutations(sorted(of_row)))
    queries = random_units(2, seed=7)
    found = nearness(snapshot, orders, np.array(sequences, np.int64), queries)
    assert found.shape == (2, len(sequences))
    for query, row in zip(queries, found, strict=True):
        told = [expected(of_row, orders[sequence], sequence, query) for sequence in sequences]
        mean = sum(common for _, common in told) / len(told)
        values = [near - 0.5 * (common - mean) for near, common in told]
        assert row.tolist() == pytest.approx(values, abs=1e-5)


def test_neighbours_that_cancel_each_other_out_have_no_direction() -> None:
    v = random_units(1)[0]
    snapshot = snapshot_of(np.stack([v, -v]))
    order = order_of([10, 20])
    found = nearness(snapshot, {10: order, 20: order}, np.array([10, 20]), v[np.newaxis])
    np.testing.assert_allclose(found, [[1.0, -1.0]], atol=1e-6)


def test_what_is_said_around_decides_between_equal_texts() -> None:
    topic, other, line, query = np.eye(4, DIMENSION, dtype=np.float32)
    query = unit(line + topic)
    snapshot = snapshot_of(np.stack([topic, line, other, line]))
    right, wrong = order_of([10, 20]), order_of([30, 40])
    orders = {10: right, 20: right, 30: wrong, 40: wrong}
    ((in_topic, elsewhere),) = nearness(snapshot, orders, np.array([20, 40]), query[np.newaxis])
    assert in_topic > elsewhere


def test_what_is_near_to_everything_comes_after_what_is_near_to_the_query() -> None:
    axes = np.eye(DIMENSION, dtype=np.float32)
    everything = unit(axes[:9].sum(axis=0))
    vectors = np.stack([*axes[:9], everything, unit(axes[9] + axes[10])])
    snapshot = snapshot_of(vectors)
    orders = {(i + 1) * 10: order_of([(i + 1) * 10]) for i in range(len(vectors))}
    query = unit(everything + 1.2 * axes[9])[np.newaxis]
    cosines = vectors[[9, 10]] @ query[0]
    ((hub, hit),) = nearness(snapshot, orders, np.array([100, 110]), query)
    assert cosines[0] > cosines[1]
    assert hit > hub


def test_what_is_near_to_everything_is_no_less_near_where_all_is_so() -> None:
    line, query = random_units(2)
    snapshot = snapshot_of(np.stack([line] * 20))
    orders = {(i + 1) * 10: order_of([(i + 1) * 10]) for i in range(20)}
    found = nearness(snapshot, orders, snapshot.sequences, query[np.newaxis])
    np.testing.assert_allclose(found, [[line @ query] * 20], atol=1e-6)


def test_only_some_rows_of_a_large_index_are_compared() -> None:
    vectors = random_units(2 * REFERENCES + 1)
    orders = {row: order_of([row]) for row in (10, 20)}
    sequences = np.array([10, 20])
    ((first, second),) = nearness(snapshot_of(vectors), orders, sequences, vectors[:1])
    places = np.arange(REFERENCES) * len(vectors) // REFERENCES
    common = [
        np.sort(vectors[[i for i in places.tolist() if i != row]] @ vectors[row])[-8:].mean()
        for row in range(2)
    ]
    told = 1 - vectors[0] @ vectors[1] - 0.5 * (common[0] - common[1])
    assert first - second == pytest.approx(told, abs=1e-5)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_rows_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    vectors = random_units(10)
    snapshot = snapshot_of(vectors)
    orders = {(i + 1) * 10: order_of([(i + 1) * 10]) for i in range(10)}
    expected = nearness(snapshot, orders, snapshot.sequences, vectors[:2])
    monkeypatch.setattr(surroundings, "_ROWS_AT_ONCE", at_once)
    found = nearness(snapshot, orders, snapshot.sequences, vectors[:2])
    np.testing.assert_allclose(found, expected, atol=1e-6)
