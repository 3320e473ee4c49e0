"""The Encoder deployment: turns texts into vectors and passes them on to the Index."""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from itertools import islice
from time import monotonic

import numpy as np
from ray.serve.handle import DeploymentHandle

from deployments.calls import call
from deployments.core.api.results import Json
from deployments.core.coalescer import Coalescer
from deployments.core.configured_models import external_identity, is_external
from deployments.core.encoding.batcher import Encoded, Priority
from deployments.core.encoding.followed_models import FollowedModels
from deployments.core.encoding.loaded_models import LoadedModels, load_model
from deployments.core.encoding.query_vectors import compact, query_vectors
from deployments.core.encoding.segment_encoder import SegmentEncoder
from deployments.core.encoding.segment_images import SegmentImages
from deployments.core.encoding.text_encoder import TextKind
from deployments.core.encoding.workload import Workload
from deployments.core.errors import InvalidInput, NotReady, OtherModel, ServiceError
from deployments.core.segments import (
    EmbeddingType,
    ModelIdentity,
    Models,
    MomentSearch,
    Query,
    Search,
    Upsert,
    UpsertResult,
    Vector,
    Vectors,
)
from deployments.core.settings import Settings
from deployments.logs import log_as_serve
from deployments.metrics import EncoderMetrics, Publisher
from deployments.request_ids import current_request_id, work_for

logger = logging.getLogger(__name__)

INDEX_CALLS_IN_FLIGHT = 4
MAX_GROUPS_PER_CALL = 16
MOST_ATTEMPTS = 5
"""Rounds of encoding for one upsert: each ends with everything stored, unless another client
changed the same segments meanwhile."""


PROBE = "health check"

_Group = tuple[list[Search | MomentSearch], list[Vector], Models, str]
"""What was encoded together, with which models, and the ids of the requests that it is for."""


class Encoder:
    """Encodes queries before bulk, in batches by tokens; holds nothing that must survive."""

    def __init__(self, settings: Settings, index: DeploymentHandle) -> None:
        log_as_serve()
        self._timeout_s = settings.embeddings_timeout_s
        self._index = index
        names = settings.models()
        self._loaded = LoadedModels(partial(load_model, settings=settings))
        configured = {
            kind: external_identity(name) if is_external(name) else self._loaded.add(name).identity
            for kind, name in names.items()
        }
        self._models = FollowedModels(self._loaded, configured, self._models_of_index)
        self._workload = Workload(self._loaded.stats)
        self._metrics = EncoderMetrics()
        metrics, loaded = self._metrics, self._loaded
        images = SegmentImages(
            settings.embeddings_image_root,
            settings.embeddings_max_image_bytes,
            settings.embeddings_max_image_pixels,
        )
        self._segments = SegmentEncoder(loaded, images, metrics.encoded)
        self._publisher = Publisher(lambda: metrics.publish(loaded.stats(), loaded.cache_stats()))
        self._searches: Coalescer[_Group, list[Json | ServiceError]] = Coalescer(
            self._search_index,
            max_in_flight=INDEX_CALLS_IN_FLIGHT,
            max_batch=MAX_GROUPS_PER_CALL,
            max_waiting=settings.embeddings_max_queued_searches,
        )

    async def search(self, queries: Sequence[Query]) -> list[Json | ServiceError]:
        """The answer to each query, or why it has none."""
        return await self._models.with_models(partial(self._search, queries))

    async def _search(self, queries: Sequence[Query], models: Models) -> list[Json | ServiceError]:
        compared = await query_vectors(queries, models, self._encode_queries)
        answers: dict[int, Json | ServiceError] = {}
        searches, vectors = {}, []
        for i, (query, found) in enumerate(zip(queries, compared, strict=True)):
            if isinstance(found, InvalidInput):
                # Of its own query only; the others are other callers'.
                answers[i] = found
            else:
                searches[i] = query.search
                vectors += found
        if searches:
            told = await self._submit(list(searches.values()), vectors, models)
            answers |= zip(searches, told, strict=True)
        return [answers[i] for i in range(len(queries))]

    async def check(self) -> None:
        """Encode and search for real, past the caches and past the searches that wait.

        Once for each model; in an index whose model runs elsewhere, with any vector.
        """
        await self._models.with_models(self._check)

    async def _check(self, models: Models) -> None:
        kinds = {model.name: kind for kind, model in reversed(list(models.items()))}
        searches = [Search(kind, top_k=1) for kind in kinds.values()]
        vectors = await asyncio.gather(*map(self._probe, kinds))
        await call(
            lambda: self._index.check.remote(searches, compact(vectors), _fingerprints(models)),
            what="the index",
            timeout_s=self._timeout_s,
        )

    async def embed(self, upsert: Upsert) -> UpsertResult:
        """Store segments, encoding only those for which the index has no vector."""
        return await self._models.with_models(partial(self._embed, upsert))

    async def _embed(self, upsert: Upsert, models: Models) -> UpsertResult:
        model = models[upsert.embedding_type]
        upsert, images = await self._segments.prepare(upsert, model)
        for _ in range(MOST_ATTEMPTS):
            result = await self._apply(upsert, model)
            if not result.missing:
                return result
            upsert = await self._segments.complete(upsert, result.missing, images, model)
        raise NotReady("the same segments are being changed by other requests; try again")

    async def encode(
        self, texts: Sequence[str], kind: TextKind, priority: Priority, model: str
    ) -> Encoded:
        """The vectors of texts that aren't stored, of the shape (len(texts), dimension).

        `model` is the name of one of `models`.
        """
        started = monotonic()
        batcher = (await self._models.named(model)).batcher
        encoded = await batcher.encode(texts, kind, priority)
        self._metrics.encoded(priority, monotonic() - started)
        return encoded

    async def encode_anew(
        self, model: ModelIdentity, texts: Sequence[str], kind: TextKind
    ) -> Encoded:
        """As `encode`, behind all else, with any model, which is loaded if it isn't yet."""
        batcher = (await self._models.borrowed(model)).batcher
        return await batcher.encode(texts, kind, Priority.BULK)

    async def models(self) -> tuple[ModelIdentity, ...]:
        """The models that encode for the index."""
        return self._models.identities

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What Serve asks for from time to time and gives to the policy of `scaling`."""
        return self._workload.read()

    async def _encode_queries(self, model: str, texts: list[str]) -> Vectors:
        started = monotonic()
        vectors = await self._loaded.use(model).queries.encode(texts)
        seconds = monotonic() - started
        self._metrics.encoded(Priority.QUERY, seconds)
        logger.debug("Encoded %d queries in %.1f ms", len(texts), seconds * 1000)
        return vectors

    async def _probe(self, model: str) -> Vector:
        if is_external(model):
            return np.eye(1, external_identity(model).dimension, dtype=np.float32)[0]
        batcher = self._loaded.use(model).batcher
        encoded = await batcher.encode([PROBE], "query", Priority.QUERY)
        vector: Vector = encoded.vectors[0]
        return vector

    async def _submit(
        self, searches: list[Search | MomentSearch], vectors: list[Vector], models: Models
    ) -> list[Json | ServiceError]:
        return await self._searches.submit((searches, vectors, models, current_request_id()))

    async def _search_index(self, groups: list[_Group]) -> list[list[Json | ServiceError]]:
        """One call for the searches of all groups that were encoded together."""
        work_for(request_ids for *_, request_ids in groups)
        models = self._models.models
        if any(of_group is not models for _, _, of_group, _ in groups):
            raise OtherModel("the model was changed while queries were encoded")
        searches = [search for group, *_ in groups for search in group]
        vectors = compact([vector for _, vectors, *_ in groups for vector in vectors])
        results = await call(
            lambda: self._index.search.remote(searches, vectors, _fingerprints(models)),
            what="the index",
            timeout_s=self._timeout_s,
        )
        rest = iter(results)
        return [list(islice(rest, len(group))) for group, *_ in groups]

    async def _models_of_index(self) -> Models:
        return await call(
            lambda: self._index.models.remote(), what="the index", timeout_s=self._timeout_s
        )

    async def _apply(self, upsert: Upsert, model: ModelIdentity) -> UpsertResult:
        return await call(
            lambda: self._index.upsert.remote(upsert, model.fingerprint),
            what="the index",
            timeout_s=self._timeout_s,
        )


def _fingerprints(models: Models) -> dict[EmbeddingType, str]:
    return {kind: model.fingerprint for kind, model in models.items()}
