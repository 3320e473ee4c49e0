"""The models that an Encoder has in memory."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

from deployments.core.encoding.batcher import TokenBatcher
from deployments.core.encoding.batcher_stats import BatcherStats
from deployments.core.encoding.query_cache import CacheStats, QueryCache
from deployments.core.encoding.text_encoder import load_text_encoder
from deployments.core.errors import NotReady
from deployments.core.segments import ModelIdentity
from deployments.core.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with its queue, and with the cache of the queries that it encoded."""

    batcher: TokenBatcher
    queries: QueryCache

    @property
    def identity(self) -> ModelIdentity:
        """Which vectors it makes."""
        return self.batcher.encoder.identity


def load_model(name: str, settings: Settings) -> LoadedModel:
    """Load a model as the settings say; takes seconds. Raises ModelError, SettingsError."""
    encoder = load_text_encoder(
        name,
        device=settings.embedding_device,
        backend=settings.embedding_backend,
        precision=settings.embedding_precision,
        threads=settings.embeddings_encoder_threads,
        cache_dir=settings.embeddings_cache_dir,
    )
    encoder.encode(encoder.tokenize(["warm-up"], "query"))
    logger.info(
        "Encoding with %s in %s by %s on %s",
        encoder.identity.name,
        settings.embedding_precision,
        encoder.backend,
        encoder.device,
    )
    batcher = TokenBatcher(
        encoder,
        bulk_encoder=encoder.for_bulk(),
        max_batch_tokens=settings.embeddings_batch_tokens,
        max_queued_tokens=settings.embeddings_queued_tokens,
        # What has to wait longer would only be given up after all that time.
        max_wait_s=settings.embeddings_timeout_s / 2,
    )
    return LoadedModel(batcher, QueryCache(batcher, settings.embeddings_query_cache))


class LoadedModels:
    """Models by their names, each in memory once. `load` takes seconds and may raise ModelError."""

    def __init__(self, load: Callable[[str], LoadedModel]) -> None:
        self._load = load
        self._loaded: dict[str, LoadedModel] = {}
        self._dropped = BatcherStats()
        self._dropped_cache = CacheStats()

    @property
    def identities(self) -> tuple[ModelIdentity, ...]:
        """Those that are loaded, in the order in which they were added."""
        return tuple(model.identity for model in self._loaded.values())

    def add(self, name: str) -> LoadedModel:
        """The model, loaded now unless it was before."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def use(self, name: str) -> LoadedModel:
        """A model that was added. Raises NotReady if it wasn't, or was dropped."""
        try:
            return self._loaded[name]
        except KeyError:
            raise NotReady(f"the model {name} isn't loaded here; try again in a moment") from None

    async def drop(self, name: str) -> None:
        """Forget a model, once what it works on is done."""
        model = self._loaded.pop(name, None)
        if model is not None:
            await model.batcher.close()
            # Their counters only grow, whatever becomes of the models.
            done = replace(
                model.batcher.stats(), queued_query_tokens=0, queued_bulk_tokens=0, queued_seconds=0
            )
            self._dropped = _sum([self._dropped, done])
            self._dropped_cache = _sum([self._dropped_cache, model.queries.stats])

    def stats(self) -> BatcherStats:
        """What waits for all models and what they did, together."""
        # Of a copy: models are added in other threads.
        loaded = list(self._loaded.values())
        return _sum([self._dropped, *(each.batcher.stats() for each in loaded)])

    def cache_stats(self) -> CacheStats:
        """What all caches of queries spared."""
        loaded = list(self._loaded.values())
        return _sum([self._dropped_cache, *(each.queries.stats for each in loaded)])


Counts = TypeVar("Counts", BatcherStats, CacheStats)


def _sum(counts: list[Counts]) -> Counts:
    kind = type(counts[0])
    return kind(*(sum(getattr(each, field.name) for each in counts) for field in fields(kind)))
