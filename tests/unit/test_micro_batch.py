"""MicroBatchQueue without an encoder: who goes with whom, and when."""

import asyncio
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.core.encoding.micro_batch import (
    QUERY_BATCHES_PER_BULK,
    WINDOW_BATCHES,
    Job,
    MicroBatchQueue,
    Priority,
    Row,
)
from deployments.core.encoding.text_encoder import Tokens

QUERY, BULK = Priority


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def rows_of(loop, priority, lengths, tag=0):
    """A job's rows; equal lengths with equal tags have equal tokens."""
    job = Job(
        loop.create_future(), np.zeros((len(lengths), 1), np.float32), priority, len(lengths), 0
    )
    return [Row(job, i, Tokens((tag,) * length)) for i, length in enumerate(lengths)]


def distinct_rows(loop, priority, lengths):
    """Like rows_of, but no two rows have equal tokens."""
    rows = rows_of(loop, priority, lengths)
    for i, row in enumerate(rows):
        row.tokens = Tokens((i, *row.tokens.ids[1:]))
    return rows


def lengths_of(batch):
    return [len(tokens) for tokens in batch.tokens]


def drain(queue):
    batches = []
    while batch := queue.take():
        batches.append(batch)
    return batches


def test_an_empty_queue_has_nothing():
    assert MicroBatchQueue(10).take() is None


def test_queries_overtake_bulk_and_keep_their_order(loop):
    queue = MicroBatchQueue(12)
    queue.add(distinct_rows(loop, BULK, [3, 3]), BULK)
    queue.add(distinct_rows(loop, QUERY, [4, 2, 5]), QUERY)
    assert [lengths_of(batch) for batch in drain(queue)] == [[4, 2], [5], [3, 3]]


def test_bulk_is_sorted_by_length(loop):
    queue = MicroBatchQueue(8)
    queue.add(distinct_rows(loop, BULK, [4, 1, 7, 2, 2, 4]), BULK)
    batches = drain(queue)
    assert [lengths_of(batch) for batch in batches] == [[1, 2, 2], [4, 4], [7]]
    assert [batch.padded_tokens for batch in batches] == [6, 8, 7]
    assert [batch.useful_tokens for batch in batches] == [5, 8, 7]


def test_bulk_is_sorted_within_a_window_only(loop):
    queue = MicroBatchQueue(4)
    old = distinct_rows(loop, BULK, [4] * WINDOW_BATCHES)
    queue.add(old, BULK)
    queue.add(distinct_rows(loop, BULK, [1]), BULK)
    assert [lengths_of(batch) for batch in drain(queue)] == [[4]] * WINDOW_BATCHES + [[1]]


def test_a_text_longer_than_the_budget_goes_alone(loop):
    queue = MicroBatchQueue(4)
    queue.add(distinct_rows(loop, QUERY, [9, 1]), QUERY)
    queue.add(distinct_rows(loop, BULK, [8, 8]), BULK)
    assert [lengths_of(batch) for batch in drain(queue)] == [[9], [1], [8], [8]]


def test_equal_tokens_share_a_place_and_cost_nothing(loop):
    queue = MicroBatchQueue(4)
    first = rows_of(loop, BULK, [4, 4])
    second = rows_of(loop, BULK, [4])
    queue.add(first, BULK)
    queue.add(second, BULK)
    (batch,) = drain(queue)
    assert lengths_of(batch) == [4]
    assert batch.groups == [first + second]


def test_rows_of_ended_jobs_are_dropped(loop):
    queue = MicroBatchQueue(100)
    dropped = rows_of(loop, QUERY, [1, 2], tag=1), rows_of(loop, BULK, [1, 2], tag=2)
    kept = rows_of(loop, QUERY, [3], tag=3), rows_of(loop, BULK, [3], tag=4)
    for query_rows, bulk_rows in (dropped, kept):
        queue.add(query_rows, QUERY)
        queue.add(bulk_rows, BULK)
    for rows in dropped:
        rows[0].job.done.cancel()
    assert [batch.groups for batch in drain(queue)] == [[kept[0]], [kept[1]]]


def test_a_job_that_ends_after_the_window_was_cut_is_dropped(loop):
    queue = MicroBatchQueue(2)
    rows = distinct_rows(loop, BULK, [2, 2, 2])
    queue.add(rows, BULK)
    assert queue.take().groups == [[rows[0]]]
    rows[0].job.done.set_exception(ValueError())
    rows[0].job.done.exception()
    assert queue.take() is None


def test_a_window_of_ended_jobs_hides_nothing(loop):
    queue = MicroBatchQueue(1)
    dropped = distinct_rows(loop, BULK, [1] * 3 * WINDOW_BATCHES)
    kept = rows_of(loop, BULK, [1], tag=-1)
    queue.add(dropped, BULK)
    queue.add(kept, BULK)
    dropped[0].job.done.cancel()
    assert queue.take().groups == [kept]


def test_under_constant_queries_bulk_gets_its_share(loop):
    queue = MicroBatchQueue(1)
    queue.add(distinct_rows(loop, BULK, [1, 1, 1]), BULK)
    queue.add(distinct_rows(loop, QUERY, [1] * 20), QUERY)
    priorities = [batch.groups[0][0].job.priority for batch in drain(queue)]
    round_of_queries = [QUERY] * QUERY_BATCHES_PER_BULK
    assert priorities == [*round_of_queries, BULK, *round_of_queries, BULK, *[QUERY] * 4, BULK]


jobs = st.lists(
    st.tuples(st.sampled_from(Priority), st.lists(st.integers(1, 12), min_size=1, max_size=8)),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(jobs, st.integers(1, 40), st.randoms(use_true_random=False))
def test_every_live_row_is_taken_once_within_the_budget(described, budget, random):
    with closing(asyncio.new_event_loop()) as loop:
        queue = MicroBatchQueue(budget)
        waiting, taken, cancelled = [], [], set()
        for number, (priority, lengths) in enumerate(described):
            rows = rows_of(loop, priority, lengths, tag=number % 3)
            queue.add(rows, priority)
            waiting += rows
            if random.random() < 0.2:
                rows[0].job.done.cancel()
                cancelled.add(rows[0].job)
            if random.random() < 0.5 and (batch := queue.take()):
                taken.append(batch)
        taken += drain(queue)
        for batch in taken:
            assert len(batch.tokens) == 1 or batch.padded_tokens <= budget
            assert len({tokens.key for tokens in batch.tokens}) == len(batch.tokens)
            for tokens, group in zip(batch.tokens, batch.groups, strict=True):
                assert all(row.tokens.key == tokens.key for row in group)
            assert len({row.job.priority for group in batch.groups for row in group}) == 1
        found = [row for batch in taken for group in batch.groups for row in group]
        assert len(found) == len(set(found))
        assert set(found) >= {row for row in waiting if row.job not in cancelled}
        firsts = [group[0] for b in taken for group in b.groups if group[0].job.priority is QUERY]
        assert firsts == sorted(firsts, key=waiting.index)
