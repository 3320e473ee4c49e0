"""The models that an encoder has in memory: loaded once, dropped when they aren't needed."""

import pytest

from deployments.core.encoding.batcher import Priority, TokenBatcher
from deployments.core.encoding.loaded_models import LoadedModel, LoadedModels
from deployments.core.encoding.query_cache import QueryCache
from deployments.core.errors import NotReady
from tests.fakes import FakeTextEncoder

DIMENSIONS = {"texts": 8, "images": 4}


@pytest.fixture
def loads():
    return []


@pytest.fixture
def models(loads):
    def load(name):
        loads.append(name)
        encoder = FakeTextEncoder(DIMENSIONS[name])
        batcher = TokenBatcher(encoder, max_batch_tokens=64, max_queued_tokens=1000)
        return LoadedModel(batcher, QueryCache(batcher, 10))

    return LoadedModels(load)


async def test_a_model_is_loaded_once(models, loads):
    first = models.add("texts")
    assert models.add("texts") is models.use("texts") is first
    models.add("images")
    assert loads == ["texts", "images"]
    assert [each.dimension for each in models.identities] == [8, 4]
    assert (await models.use("images").queries.encode(["a"])).shape == (1, 4)


async def test_a_model_that_was_not_added_or_was_dropped_is_not_there(models, loads):
    with pytest.raises(NotReady, match="texts isn't loaded"):
        models.use("texts")
    dropped = models.add("texts")
    await models.drop("texts")
    await models.drop("texts")
    assert models.identities == ()
    with pytest.raises(NotReady, match="texts isn't loaded"):
        models.use("texts")
    with pytest.raises(NotReady, match="shutting down"):
        await dropped.batcher.encode(["a"], "query", Priority.QUERY)
    models.add("texts")
    assert loads == ["texts", "texts"]


async def test_counters_are_those_of_all_models_and_never_fall(models):
    for name in DIMENSIONS:
        for _ in range(2):
            await models.add(name).queries.encode(["one", "two words"])
    before, cache = models.stats(), models.cache_stats()
    assert (before.rows, before.useful_tokens, cache.hits, cache.misses) == (4, 10, 4, 4)
    assert before.encode_seconds > 0
    await models.drop("texts")
    assert (models.stats(), models.cache_stats()) == (before, cache)
