import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deployments.core.encoding.vector_cache import VectorCache


@given(
    st.integers(0, 4),
    st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=60),
)
def test_the_vectors_used_last_are_kept(capacity, steps):
    cache = VectorCache(capacity)
    expected = {}
    for number, (key, is_written) in enumerate(steps):
        if is_written:
            cache.keep(key, np.full(2, number, np.float32))
            expected.pop(key, None)
            expected[key] = number
            if len(expected) > capacity:
                del expected[next(iter(expected))]
            continue
        found = cache.get(key)
        if key in expected:
            assert found is not None
            np.testing.assert_array_equal(found, [expected[key]] * 2)
            expected[key] = expected.pop(key)
        else:
            assert found is None
    assert len(cache) == len(expected)


def test_a_kept_vector_doesnt_follow_its_batch():
    cache = VectorCache(1)
    batch = np.ones((2, 3), np.float32)
    cache.keep("a", batch[0])
    batch[:] = 0
    np.testing.assert_array_equal(cache.get("a"), np.ones(3))
