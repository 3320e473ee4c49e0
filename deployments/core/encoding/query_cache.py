"""The vectors of recent queries: people ask the same things again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deployments.core.encoding.batcher import Priority, TokenBatcher
from deployments.core.encoding.vector_cache import VectorCache
from deployments.core.segments import Vectors

MAX_TEXT_CHARS = 1000
"""Longer texts are encoded each time: hardly anyone sends the same one twice, and the cache's
memory stays within about 5 KB an entry."""


@dataclass(slots=True)
class CacheStats:
    """How many queries found their vector in the cache, and how many had to be encoded."""

    hits: int = 0
    misses: int = 0


class QueryCache:
    """Encodes queries with a batcher, and those of the last `capacity` texts not again.

    `capacity` 0 switches it off. A model's vector of a text is always the same, so no entry gets
    out of date. Serves one event loop.
    """

    def __init__(self, batcher: TokenBatcher, capacity: int) -> None:
        self._batcher = batcher
        self._vectors: VectorCache[str] = VectorCache(capacity)
        self.stats = CacheStats()

    def __len__(self) -> int:
        return len(self._vectors)

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """The vectors of queries, shape (len(texts), dimension). Raises what the batcher raises."""
        vectors = np.empty((len(texts), self._batcher.encoder.identity.dimension), np.float32)
        missing: list[int] = []
        for position, text in enumerate(texts):
            known = self._vectors.get(text)
            if known is None:
                missing.append(position)
            else:
                vectors[position] = known
        self.stats.hits += len(texts) - len(missing)
        self.stats.misses += len(missing)
        if missing:
            wanted = [texts[position] for position in missing]
            encoded = await self._batcher.encode(wanted, "query", Priority.QUERY)
            vectors[missing] = encoded.vectors
            for text, vector in zip(wanted, encoded.vectors, strict=True):
                if len(text) <= MAX_TEXT_CHARS:
                    self._vectors.keep(text, vector)
        return vectors
