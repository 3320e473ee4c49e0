"""The rows of media items by time, read once and again after each change."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage_samples import CLIP, MODEL, TRANSCRIPT, store_segments

from deployments.core.index.segment_index import SegmentIndex
from deployments.core.search.media_orders import MediaOrder, MediaOrders
from deployments.core.segments import EmbeddingType, Segment
from deployments.core.storage.time_order import time_keys


@pytest.fixture
def index(tmp_path: Path) -> Any:
    with SegmentIndex.open(tmp_path / "index", MODEL) as index:
        yield index


def read(index: SegmentIndex, orders: MediaOrders, kind: EmbeddingType, key: str) -> MediaOrder:
    return index.read(lambda reader, _: orders.of(reader, kind, key))


def told(order: MediaOrder) -> tuple[list[int], list[int]]:
    return order.timed.tolist(), order.rows.tolist()


def from_store(index: SegmentIndex, kind: EmbeddingType, key: str) -> tuple[list[int], list[int]]:
    keys = sorted(index.read(lambda reader, _: time_keys(reader, kind, key)))
    return [seq for untimed, _, seq in keys if not untimed], sorted(seq for *_, seq in keys)


names = st.sampled_from(["a", "b", "c"])
write = st.tuples(
    names,
    st.dictionaries(st.integers(0, 5), st.none() | st.integers(0, 9), min_size=1, max_size=3),
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(write | names, max_size=12), most_rows=st.sampled_from([0, 4, 1000]))
def test_it_is_always_that_of_the_store(
    index: SegmentIndex, steps: list[Any], most_rows: int
) -> None:
    orders = MediaOrders(most_rows)
    for name in "abc":
        index.delete_media(name)
    for step in steps:
        if isinstance(step, str):
            index.delete_media(step)
        else:
            name, times = step
            segments = [Segment(i, f"{name} {i} {time}", time) for i, time in times.items()]
            store_segments(index, name, *segments)
        for name in "abc":
            order = read(index, orders, TRANSCRIPT, name)
            assert told(order) == from_store(index, TRANSCRIPT, name)
        assert told(read(index, orders, CLIP, "a")) == ([], [])


def test_it_is_read_once(index: SegmentIndex) -> None:
    store_segments(index, "a", Segment(1, "later", 5), Segment(2, "earlier", 3), Segment(3, "?"))
    orders = MediaOrders()
    order = read(index, orders, TRANSCRIPT, "a")
    assert told(order) == ([2, 1], [1, 2, 3])
    assert read(index, orders, TRANSCRIPT, "a") is order
    store_segments(index, "b", Segment(1, "another media item", 1))
    assert read(index, orders, TRANSCRIPT, "a") is order


def test_around_a_row_are_its_neighbours_in_time(index: SegmentIndex) -> None:
    store_segments(index, "a", *(Segment(i, f"line {i}", i) for i in range(7)), Segment(7, "?"))
    order = read(index, MediaOrders(), TRANSCRIPT, "a")
    assert order.around(4, 2).tolist() == [2, 3, 4, 5, 6]
    assert order.around(1, 2).tolist() == [1, 2, 3]
    assert order.around(7, 1).tolist() == [6, 7]
    assert order.around(8, 2).tolist() == [8]
