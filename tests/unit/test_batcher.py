import asyncio
import contextvars
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.core.encoding.batcher import Priority, TokenBatcher
from deployments.core.errors import ModelError, NotReady, Overloaded, ServiceError
from deployments.core.thread_priority import STEPS_DOWN
from tests.fakes import FakeTextEncoder, HeldTextEncoder

QUERY, BULK = Priority


def batcher_of(encoder, max_batch_tokens=1000, max_queued_tokens=100_000):
    return TokenBatcher(
        encoder, max_batch_tokens=max_batch_tokens, max_queued_tokens=max_queued_tokens
    )


async def begun(encoder):
    await asyncio.to_thread(encoder.wait_until_begun)


async def until_queued(batcher, tokens):
    """Wait until exactly so many tokens are queued, whatever their priority."""
    async with asyncio.timeout(30):
        while True:
            stats = batcher.stats()
            if stats.queued_query_tokens + stats.queued_bulk_tokens == tokens:
                return
            await asyncio.sleep(0)


async def queued(batcher, texts, priority, tokens):
    """A task that encodes, once its tokens are queued behind `tokens` others."""
    kind = "query" if priority is QUERY else "document"
    task = asyncio.create_task(batcher.encode(texts, kind, priority))
    # An estimate stands for a call's tokens while it is tokenised: wait for the job itself.
    jobs = len(batcher._jobs)
    async with asyncio.timeout(30):
        while len(batcher._jobs) == jobs:
            await asyncio.sleep(0)
    await until_queued(batcher, tokens)
    return task


def texts_of(encoder, batch):
    """Lengths of what a batch encoded."""
    return [len(tokens) for tokens in batch]


async def test_each_text_gets_its_vector_and_its_flag():
    encoder = FakeTextEncoder(max_tokens=4)
    batcher = batcher_of(encoder)
    texts = ["a", "a b c d e", "b", "a", ""]
    encoded = await batcher.encode(texts, "document", BULK)
    assert encoded.vectors.dtype == np.float32
    np.testing.assert_array_equal(encoded.vectors, encoder.vectors_of(texts))
    assert encoded.truncated == (False, True, False, False, False)
    await batcher.close()


async def test_no_texts_have_no_vectors():
    encoder = FakeTextEncoder()
    batcher = batcher_of(encoder)
    encoded = await batcher.encode([], "document", BULK)
    assert encoded.vectors.shape == (0, encoder.identity.dimension)
    assert encoded.truncated == ()
    assert encoder.batches == []
    await batcher.close()


async def test_one_string_is_not_taken_for_texts():
    batcher = batcher_of(FakeTextEncoder())
    with pytest.raises(TypeError, match="one string"):
        await batcher.encode("abc", "document", BULK)
    await batcher.close()


async def test_equal_texts_of_several_calls_are_encoded_once():
    encoder = HeldTextEncoder()
    batcher = batcher_of(encoder)
    first = await queued(batcher, ["running"], BULK, 0)
    await begun(encoder)
    calls = [await queued(batcher, ["a b", "c d"], BULK, 6 * (n + 1)) for n in range(3)]
    encoder.let_end(2)
    for encoded in await asyncio.gather(*calls):
        np.testing.assert_array_equal(encoded.vectors, encoder.vectors_of(["a b", "c d"]))
    await first
    assert [len(batch) for batch in encoder.batches] == [1, 2]
    stats = batcher.stats()
    assert (stats.batches, stats.rows, stats.duplicate_rows) == (2, 7, 4)
    assert (stats.useful_tokens, stats.padded_tokens) == (2 + 6, 2 + 6)
    await batcher.close()


async def test_what_a_call_had_encoded_before_it_was_given_up_is_not_encoded_again():
    encoder = HeldTextEncoder()
    batcher = batcher_of(encoder, max_batch_tokens=4)
    texts = ["a b", "c d", "e f", "g h"]
    given_up = asyncio.create_task(batcher.encode(texts, "document", BULK))
    await begun(encoder)
    encoder.let_end()
    await begun(encoder)
    given_up.cancel()
    again = asyncio.create_task(batcher.encode(texts, "document", BULK))
    encoder.let_end(4)
    np.testing.assert_array_equal((await again).vectors, encoder.vectors_of(texts))
    assert given_up.cancelled()
    encoded = [tokens.ids for batch in encoder.batches for tokens in batch]
    assert len(encoded) == len(set(encoded)) == len(texts)
    stats = batcher.stats()
    assert (stats.rows, stats.remembered_rows) == (4, 2)
    assert stats.queued_bulk_tokens == 0
    await batcher.close()


async def test_two_calls_with_the_same_texts_encode_them_once_whoever_comes_first():
    encoder = HeldTextEncoder()
    batcher = batcher_of(encoder, max_batch_tokens=4)
    texts = ["a b", "c d", "e f"]
    calls = [asyncio.create_task(batcher.encode(texts, "document", BULK)) for _ in range(2)]
    encoder.let_end(6)
    for encoded in await asyncio.gather(*calls):
        np.testing.assert_array_equal(encoded.vectors, encoder.vectors_of(texts))
    encoded = [tokens.ids for batch in encoder.batches for tokens in batch]
    assert len(encoded) == len(set(encoded)) == len(texts)
    await batcher.close()


async def test_queries_alone_are_not_remembered_by_the_batcher():
    encoder = FakeTextEncoder()
    batcher = batcher_of(encoder)
    for _ in range(2):
        await batcher.encode(["a"], "query", QUERY)
    assert len(encoder.batches) == 2
    assert batcher.stats().remembered_rows == 0
    await batcher.close()


async def test_with_an_encoder_for_bulk_a_query_waits_for_no_bulk():
    encoder, bulk_encoder = FakeTextEncoder(), HeldTextEncoder()
    batcher = TokenBatcher(
        encoder, max_batch_tokens=4, max_queued_tokens=100_000, bulk_encoder=bulk_encoder
    )
    texts = ["a b c", "d e f", "g h i"]
    bulk = asyncio.create_task(batcher.encode(texts, "document", BULK))
    await begun(bulk_encoder)
    query = await batcher.encode(["q"], "query", QUERY)
    np.testing.assert_array_equal(query.vectors, encoder.vectors_of(["q"]))
    assert not bulk.done()
    bulk_encoder.let_end(3)
    np.testing.assert_array_equal((await bulk).vectors, encoder.vectors_of(texts))
    assert (len(encoder.batches), len(bulk_encoder.batches)) == (1, 3)
    await batcher.close()


async def test_closing_waits_for_the_micro_batches_of_both_encoders():
    encoder, bulk_encoder = HeldTextEncoder(), HeldTextEncoder()
    batcher = TokenBatcher(
        encoder, max_batch_tokens=4, max_queued_tokens=100_000, bulk_encoder=bulk_encoder
    )
    calls = [
        asyncio.create_task(batcher.encode(["a b", "c d"], "document", BULK)),
        asyncio.create_task(batcher.encode(["e f", "g h"], "query", QUERY)),
    ]
    await begun(encoder)
    await begun(bulk_encoder)
    closing = asyncio.create_task(batcher.close())
    encoder.let_end()
    bulk_encoder.let_end()
    await closing
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(outcome, NotReady)
    assert (len(encoder.batches), len(bulk_encoder.batches)) == (1, 1)


async def test_bulk_is_encoded_in_a_thread_that_gives_way():
    priorities = {}

    class Noting(FakeTextEncoder):
        def encode(self, tokens):
            thread = threading.get_native_id()
            priorities[self] = os.getpriority(os.PRIO_PROCESS, thread)
            return super().encode(tokens)

    encoder, bulk_encoder = Noting(), Noting()
    batcher = TokenBatcher(
        encoder, max_batch_tokens=4, max_queued_tokens=100_000, bulk_encoder=bulk_encoder
    )
    await batcher.encode(["a"], "document", BULK)
    await batcher.encode(["b"], "query", QUERY)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert priorities == {encoder: own, bulk_encoder: min(own + STEPS_DOWN, 19)}
    await batcher.close()


async def test_a_late_query_waits_for_the_running_micro_batch_only():
    encoder = HeldTextEncoder()
    batcher = batcher_of(encoder, max_batch_tokens=4)
    bulk = asyncio.create_task(batcher.encode(["a b c", "d e f", "g h i"], "document", BULK))
    await begun(encoder)
    query = await queued(batcher, ["q"], QUERY, 8 + 2)
    encoder.let_end(2)
    await query
    assert not bulk.done()
    encoder.let_end(2)
    await bulk
    assert [texts_of(encoder, batch) for batch in encoder.batches] == [[4], [2], [4], [4]]
    await batcher.close()


async def test_cancelled_work_is_dropped_from_the_queue():
    encoder = HeldTextEncoder()
    batcher = batcher_of(encoder)
    running = asyncio.create_task(batcher.encode(["running"], "document", BULK))
    await begun(encoder)
    dropped = await queued(batcher, ["dropped text"], BULK, 3)
    kept = await queued(batcher, ["kept"], BULK, 5)
    dropped.cancel()
    await until_queued(batcher, 2)
    encoder.let_end(2)
    await asyncio.gather(running, kept)
    assert dropped.cancelled()
    assert [texts_of(encoder, batch) for batch in encoder.batches] == [[2], [2]]
    assert batcher.stats().cancelled_calls == 1
    await batcher.close()


async def test_cancelling_a_running_call_does_no_harm_to_others():
    encoder = HeldTextEncoder()
    batcher = batcher_of(encoder)
    running = asyncio.create_task(batcher.encode(["running"], "document", BULK))
    await begun(encoder)
    other = await queued(batcher, ["other"], BULK, 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    encoder.let_end(2)
    encoded = await other
    np.testing.assert_array_equal(encoded.vectors, encoder.vectors_of(["other"]))
    assert batcher.stats().queued_bulk_tokens == 0
    await batcher.close()


async def test_too_much_queued_work_is_refused_at_once():
    encoder = HeldTextEncoder()
    batcher = batcher_of(encoder, max_queued_tokens=10)
    running = asyncio.create_task(batcher.encode(["running"], "document", BULK))
    await begun(encoder)
    waiting = await queued(batcher, ["a b c d"], BULK, 5)
    with pytest.raises(Overloaded, match=r"5 tokens are waiting .* the limit is 10"):
        await batcher.encode(["twelve characters and more"], "document", BULK)
    assert batcher.stats().overloaded_calls == 1
    assert batcher.stats().queued_bulk_tokens == 5
    encoder.let_end(2)
    await asyncio.gather(running, waiting)
    await batcher.close()


async def test_what_would_wait_too_long_at_the_speed_so_far_is_refused():
    encoder = HeldTextEncoder()
    batcher = TokenBatcher(encoder, max_batch_tokens=4, max_queued_tokens=100_000, max_wait_s=0.05)
    first = asyncio.create_task(batcher.encode(["a b c"], "query", QUERY))
    await begun(encoder)
    assert batcher.stats().queued_seconds == 0, "of the speed nothing is known yet"
    await asyncio.sleep(0.1)
    encoder.let_end()
    await first
    running = asyncio.create_task(batcher.encode(["d e f"], "query", QUERY))
    await begun(encoder)
    waiting = await queued(batcher, ["g h i"], QUERY, 4)
    assert batcher.stats().queued_seconds > 0.05
    with pytest.raises(Overloaded, match=r"takes about 0 s; the limit is 0\.05 s"):
        await batcher.encode(["j"], "query", QUERY)
    assert batcher.stats().overloaded_calls == 1
    encoder.let_end(2)
    await asyncio.gather(running, waiting)
    encoder.let_end()
    await batcher.encode(["j"], "query", QUERY)


async def test_bulk_leaves_queries_their_own_room():
    encoder = HeldTextEncoder()
    batcher = batcher_of(encoder, max_queued_tokens=5)
    running = asyncio.create_task(batcher.encode(["running"], "document", BULK))
    await begun(encoder)
    bulk = await queued(batcher, ["a b c d"], BULK, 5)
    query = await queued(batcher, ["q"], QUERY, 7)
    encoder.let_end(3)
    await asyncio.gather(running, bulk, query)
    await batcher.close()


async def test_a_call_beyond_the_limit_is_served_when_nothing_waits():
    encoder = FakeTextEncoder()
    batcher = batcher_of(encoder, max_queued_tokens=5)
    encoded = await batcher.encode(["a b c d e f g h i j"], "document", BULK)
    assert len(encoded.vectors) == 1
    await batcher.close()


async def test_a_failed_micro_batch_fails_its_callers_only():
    encoder = HeldTextEncoder()
    batcher = batcher_of(encoder, max_batch_tokens=6)
    running = asyncio.create_task(batcher.encode(["running"], "document", BULK))
    await begun(encoder)
    poisoned = await queued(batcher, ["poison", "a b c d e"], BULK, 8)
    beside = await queued(batcher, ["beside"], BULK, 10)
    apart = await queued(batcher, ["x y z u v w"], BULK, 17)
    encoder.let_end(10)
    results = await asyncio.gather(running, poisoned, beside, apart, return_exceptions=True)
    assert [type(result).__name__ for result in results] == [
        "Encoded", "ModelError", "ModelError", "Encoded",
    ]  # fmt: skip
    # Nothing more of the failed call was encoded.
    assert [texts_of(encoder, batch) for batch in encoder.batches] == [[2], [2, 2], [7]]
    assert results[1] is not results[2]
    assert batcher.stats().failed_batches == 1
    assert batcher.stats().queued_bulk_tokens == 0
    await batcher.close()


async def test_an_unforeseen_error_becomes_a_service_error():
    class Broken(FakeTextEncoder):
        def encode(self, tokens):
            raise RuntimeError("out of memory")

    batcher = batcher_of(Broken())
    with pytest.raises(ServiceError, match="RuntimeError: out of memory"):
        await batcher.encode(["a"], "query", QUERY)
    await batcher.close()


async def test_missing_vectors_are_an_error():
    class Short(FakeTextEncoder):
        def encode(self, tokens):
            return super().encode(tokens)[1:]

    batcher = batcher_of(Short())
    with pytest.raises(ServiceError, match="2 texts gave 1 vectors"):
        await batcher.encode(["a", "b"], "query", QUERY)
    await batcher.close()


async def test_an_error_of_the_tokenizer_leaves_nothing_queued():
    class Picky(FakeTextEncoder):
        def tokenize(self, texts, kind):
            raise ModelError("no")

    batcher = batcher_of(Picky())
    with pytest.raises(ModelError, match="no"):
        await batcher.encode(["a"], "query", QUERY)
    assert batcher.stats().queued_query_tokens == 0
    await batcher.close()


async def test_close_lets_the_running_micro_batch_end_and_fails_the_rest():
    encoder = HeldTextEncoder()
    batcher = batcher_of(encoder)
    running = asyncio.create_task(batcher.encode(["running"], "document", BULK))
    await begun(encoder)
    waiting = await queued(batcher, ["waiting"], BULK, 2)
    closing = asyncio.create_task(batcher.close())
    results = await asyncio.gather(waiting, running, return_exceptions=True)
    assert [type(result) for result in results] == [NotReady, NotReady]
    encoder.let_end()
    await closing
    assert [texts_of(encoder, batch) for batch in encoder.batches] == [[2]]
    with pytest.raises(NotReady):
        await batcher.encode(["late"], "query", QUERY)
    await batcher.close()


async def test_the_encoder_runs_in_no_callers_context():
    request = contextvars.ContextVar("request", default="none")
    batcher = batcher_of(FakeTextEncoder())
    request.set("of the caller")
    await batcher.encode(["a"], "query", QUERY)
    assert request.get() == "of the caller"
    await batcher.close()


@pytest.mark.parametrize("name", ["max_batch_tokens", "max_queued_tokens"])
def test_limits_below_one_are_refused(name):
    with pytest.raises(ValueError, match=name):
        batcher_of(FakeTextEncoder(), **{name: 0})


texts = st.lists(st.text(alphabet="ab ", max_size=12), max_size=6)
call = st.tuples(texts, st.sampled_from(Priority), st.integers(0, 5), st.booleans())


@settings(max_examples=60, deadline=None)
@given(st.lists(call, max_size=12), st.integers(1, 30))
def test_every_text_gets_its_own_vector_whatever_the_interleaving(calls, max_batch_tokens):
    async def run():
        encoder = FakeTextEncoder(max_tokens=5)
        batcher = batcher_of(encoder, max_batch_tokens=max_batch_tokens)
        tasks = []
        for texts, priority, pause, cancel in calls:
            task = asyncio.create_task(batcher.encode(texts, "document", priority))
            tasks.append(task)
            for _ in range(pause):
                await asyncio.sleep(0)
            if cancel:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for (texts, _, _, cancel), task, encoded in zip(calls, tasks, results, strict=True):
            if task.cancelled():
                assert cancel
                continue
            np.testing.assert_array_equal(encoded.vectors, encoder.vectors_of(texts))
            tokens = encoder.tokenize(texts, "document")
            assert encoded.truncated == tuple(one.truncated for one in tokens)
        stats = batcher.stats()
        assert (stats.queued_query_tokens, stats.queued_bulk_tokens) == (0, 0)
        for batch in encoder.batches:
            assert len(batch) == 1 or len(batch) * max(map(len, batch)) <= max_batch_tokens
        await batcher.close()
        assert not batcher._jobs

    asyncio.run(run())
