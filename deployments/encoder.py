"""The Encoder deployment: turns texts into vectors and passes them on to the Index."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from time import monotonic

import numpy as np
from ray.serve.handle import DeploymentHandle

from deployments.calls import call
from deployments.core.batcher import Encoded, Priority, TokenBatcher
from deployments.core.coalescer import Coalescer
from deployments.core.errors import InvalidInput, NotReady, ServiceError
from deployments.core.query_cache import QueryCache
from deployments.core.query_vectors import compact, needs_encoding, vectors_of
from deployments.core.results import Json
from deployments.core.segments import (
    EmbeddingType,
    ModelIdentity,
    MomentSearch,
    Query,
    Search,
    Upsert,
    UpsertResult,
    Vector,
)
from deployments.core.settings import Settings
from deployments.core.text_encoder import TextKind, load_text_encoder
from deployments.core.workload import Workload
from deployments.logs import log_as_serve
from deployments.metrics import EncoderMetrics, Publisher
from deployments.request_ids import current_request_id, work_for

logger = logging.getLogger(__name__)

INDEX_CALLS_IN_FLIGHT = 4
MAX_GROUPS_PER_CALL = 16
MOST_ATTEMPTS = 5
"""Rounds of encoding for one upsert: each ends with everything stored, unless another client
changed the same segments meanwhile."""


PROBE = Query("health check", Search(EmbeddingType.TRANSCRIPT, top_k=1))

_Group = tuple[list[Search | MomentSearch], list[Vector], str]
"""What was encoded together, and the ids of the requests that it is for."""


class Encoder:
    """Encodes queries before bulk, in batches by tokens; holds nothing that must survive."""

    def __init__(self, settings: Settings, index: DeploymentHandle) -> None:
        log_as_serve()
        self._timeout_s = settings.embeddings_timeout_s
        self._index = index
        encoder = load_text_encoder(
            settings.embedding_model,
            device=settings.embedding_device,
            backend=settings.embedding_backend,
            precision=settings.embedding_precision,
            threads=settings.embeddings_encoder_threads,
            cache_dir=settings.embeddings_cache_dir,
        )
        encoder.encode(encoder.tokenize(["warm-up"], "query"))
        self._fingerprint = encoder.identity.fingerprint
        logger.info(
            "Encoding with %s in %s by %s on %s",
            encoder.identity.name,
            settings.embedding_precision,
            encoder.backend,
            encoder.device,
        )
        self._batcher = TokenBatcher(
            encoder,
            bulk_encoder=encoder.for_bulk(),
            max_batch_tokens=settings.embeddings_batch_tokens,
            max_queued_tokens=settings.embeddings_queued_tokens,
            # What has to wait longer would only be given up after all that time.
            max_wait_s=settings.embeddings_timeout_s / 2,
        )
        self._workload = Workload(self._batcher.stats)
        self._queries = QueryCache(self._batcher, settings.embeddings_query_cache)
        self._metrics = EncoderMetrics()
        metrics, batcher, queries = self._metrics, self._batcher, self._queries
        self._publisher = Publisher(lambda: metrics.publish(batcher.stats(), queries.stats))
        self._searches: Coalescer[_Group, list[Json | ServiceError]] = Coalescer(
            self._search_index,
            max_in_flight=INDEX_CALLS_IN_FLIGHT,
            max_batch=MAX_GROUPS_PER_CALL,
            max_waiting=settings.embeddings_max_queued_searches,
        )

    async def search(self, queries: Sequence[Query]) -> list[Json | ServiceError]:
        """The answer to each query, or why it has none."""
        encoded = iter(await self._encode_queries(filter(needs_encoding, queries)))
        answers: dict[int, Json | ServiceError] = {}
        searches, vectors = {}, []
        for i, query in enumerate(queries):
            try:
                of_text = next(encoded) if needs_encoding(query) else None
                vectors += vectors_of(query, of_text, self._batcher.encoder.identity)
                searches[i] = query.search
            except InvalidInput as error:
                # Of its own query only; the others are other callers'.
                answers[i] = error
        if searches:
            found = await self._submit(list(searches.values()), vectors)
            answers |= zip(searches, found, strict=True)
        return [answers[i] for i in range(len(queries))]

    async def check(self) -> None:
        """Encode and search for real, past the cache and past the searches that wait."""
        encoded = await self._batcher.encode([PROBE.text], "query", Priority.QUERY)
        await call(
            lambda: self._index.check.remote(PROBE.search, encoded.vectors, self._fingerprint),
            what="the index",
            timeout_s=self._timeout_s,
        )

    async def embed(self, upsert: Upsert) -> UpsertResult:
        """Store segments, encoding only those whose text the index has no vector for."""
        for _ in range(MOST_ATTEMPTS):
            result = await self._apply(upsert)
            if not result.missing:
                return result
            upsert = await self._with_vectors(upsert, result.missing)
        raise NotReady("the same segments are being changed by other requests; try again")

    async def encode(self, texts: Sequence[str], kind: TextKind, priority: Priority) -> Encoded:
        """The vectors of texts that aren't stored, of the shape (len(texts), dimension)."""
        started = monotonic()
        encoded = await self._batcher.encode(texts, kind, priority)
        self._metrics.encoded(priority, monotonic() - started)
        return encoded

    async def model(self) -> ModelIdentity:
        """The model that encodes."""
        return self._batcher.encoder.identity

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What Serve asks for from time to time and gives to the policy of `scaling`."""
        return self._workload.read()

    async def _encode_queries(self, queries: Iterable[Query]) -> Iterable[Vector]:
        """The vectors of the queries' texts."""
        texts = [query.text for query in queries]
        if not texts:
            return []
        started = monotonic()
        vectors = await self._queries.encode(texts)
        seconds = monotonic() - started
        self._metrics.encoded(Priority.QUERY, seconds)
        logger.debug("Encoded %d queries in %.1f ms", len(texts), seconds * 1000)
        return vectors

    async def _submit(
        self, searches: list[Search | MomentSearch], vectors: list[Vector]
    ) -> list[Json | ServiceError]:
        return await self._searches.submit((searches, vectors, current_request_id()))

    async def _search_index(self, groups: list[_Group]) -> list[list[Json | ServiceError]]:
        """One call for the searches of all groups that were encoded together."""
        work_for(request_ids for _, _, request_ids in groups)
        searches = [search for group, _, _ in groups for search in group]
        vectors = compact([vector for _, vectors, _ in groups for vector in vectors])
        results = await call(
            lambda: self._index.search.remote(searches, vectors, self._fingerprint),
            what="the index",
            timeout_s=self._timeout_s,
        )
        rest = iter(results)
        return [list(islice(rest, len(group))) for group, _, _ in groups]

    async def _apply(self, upsert: Upsert) -> UpsertResult:
        return await call(
            lambda: self._index.upsert.remote(upsert, self._fingerprint),
            what="the index",
            timeout_s=self._timeout_s,
        )

    async def _with_vectors(self, upsert: Upsert, missing: tuple[int, ...]) -> Upsert:
        """The upsert with the vectors of the segments at `missing` added to those it has."""
        texts = [upsert.segments[position].text for position in missing]
        encoded = await self.encode(texts, "document", Priority.BULK)
        vectors = encoded.vectors
        if upsert.vectors is not None:
            vectors = np.concatenate([upsert.vectors, vectors])
        truncated = (
            position for position, cut in zip(missing, encoded.truncated, strict=True) if cut
        )
        return replace(
            upsert,
            vectors=vectors,
            vector_positions=upsert.vector_positions + missing,
            truncated_positions=upsert.truncated_positions + tuple(truncated),
        )
