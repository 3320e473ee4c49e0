import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.core.encoding.batcher import TokenBatcher
from deployments.core.encoding.query_cache import MAX_TEXT_CHARS, QueryCache
from deployments.core.errors import ModelError
from tests.fakes import FakeTextEncoder


def cache_over(encoder, capacity=3):
    return QueryCache(
        TokenBatcher(encoder, max_batch_tokens=1000, max_queued_tokens=100_000), capacity
    )


def encoded_texts(encoder):
    return sum(map(len, encoder.batches))


async def test_a_repeated_query_is_not_encoded_again():
    encoder = FakeTextEncoder()
    cache = cache_over(encoder)
    first = await cache.encode(["a b", "c"])
    second = await cache.encode(["c", "d", "a b"])
    np.testing.assert_array_equal(first, encoder.vectors_of(["a b", "c"]))
    np.testing.assert_array_equal(second, encoder.vectors_of(["c", "d", "a b"]))
    assert encoded_texts(encoder) == 3
    assert (cache.stats.hits, cache.stats.misses) == (2, 3)


async def test_the_least_recently_asked_is_dropped_first():
    encoder = FakeTextEncoder()
    cache = cache_over(encoder, capacity=2)
    for text in ("a", "b", "a", "c"):
        await cache.encode([text])
    assert encoded_texts(encoder) == 3
    await cache.encode(["a"])
    assert encoded_texts(encoder) == 3
    await cache.encode(["b"])
    assert encoded_texts(encoder) == 4
    assert len(cache) == 2


async def test_capacity_0_encodes_each_time():
    encoder = FakeTextEncoder()
    cache = cache_over(encoder, capacity=0)
    for _ in range(2):
        np.testing.assert_array_equal(await cache.encode(["a"]), encoder.vectors_of(["a"]))
    assert encoded_texts(encoder) == 2
    assert len(cache) == 0


async def test_a_long_text_is_not_kept():
    encoder = FakeTextEncoder()
    cache = cache_over(encoder)
    text = "x" * (MAX_TEXT_CHARS + 1)
    for _ in range(2):
        await cache.encode([text])
    assert (encoded_texts(encoder), len(cache)) == (2, 0)


async def test_a_failure_is_not_kept():
    encoder = FakeTextEncoder()
    cache = cache_over(encoder)
    for _ in range(2):
        with pytest.raises(ModelError):
            await cache.encode(["poison"])
    assert len(cache) == 0


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=6), max_size=8), st.integers(0, 4))
async def test_vectors_are_those_of_the_encoder_and_the_size_is_bounded(calls, capacity):
    encoder = FakeTextEncoder()
    cache = cache_over(encoder, capacity)
    for texts in calls:
        np.testing.assert_array_equal(await cache.encode(texts), encoder.vectors_of(texts))
        assert len(cache) <= capacity
    assert cache.stats.hits + cache.stats.misses == sum(map(len, calls))
