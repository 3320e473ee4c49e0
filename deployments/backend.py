"""What the Ingress answers with: calls to Encoder and Index."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from ray.serve.handle import DeploymentHandle

from deployments.calls import call
from deployments.core.api.results import Json
from deployments.core.coalescer import Coalescer
from deployments.core.encoding.batcher import Encoded, Priority
from deployments.core.encoding.text_encoder import TextKind
from deployments.core.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    Overloaded,
    ServiceError,
    StoreDamaged,
)
from deployments.core.recent import Recent
from deployments.core.search.media_lists import MediaList, SegmentList
from deployments.core.segments import (
    DeleteMedia,
    IndexStats,
    ModelIdentity,
    Query,
    Search,
    SegmentName,
    Upsert,
    UpsertResult,
)
from deployments.core.settings import Settings
from deployments.core.storage.migration_record import Act, MigrationRequest, MigrationStatus
from deployments.encoders import Encoders
from deployments.metrics import SearchCalls
from deployments.request_ids import current_request_id, work_for
from deployments.serve_state import failed_deployment

# For each encoder one call that it works on and one that is on its way.
CALLS_IN_FLIGHT_PER_ENCODER = 2
MAX_QUERIES_PER_CALL = 64
# Encoding costs hardly less a query in larger batches; smaller ones wait for company while a call
# runs, since a call itself costs as much as encoding a query.
FULL_BATCH_QUERIES = 16
HEALTH_TIMEOUT_S = 5.0
MODELS_FRESH_S = 1.0
# Texts there and vectors back have to fit into the 4 MiB of a message between replicas.
MAX_TEXTS_PER_CALL = 256
MAX_CHARS_PER_CALL = 500_000

_Asked = tuple[Query, str]
"""A query, and the id of the request that asks it."""


class ServeBackend:
    """The Backend on Ray Serve. Serves one event loop."""

    def __init__(self, settings: Settings, encoders: Encoders, index: DeploymentHandle) -> None:
        self._timeout_s = settings.embeddings_timeout_s
        self._encoders = encoders
        self._index = index
        self._models = Recent(self._ask_models, MODELS_FRESH_S)
        self.encoder_replicas: int | None = None
        self._calls = SearchCalls()
        self._in_batches = 0
        self._max_queued_searches = settings.embeddings_max_queued_searches
        self._searches: Coalescer[_Asked, Json] = Coalescer(
            self._search_all,
            max_in_flight=CALLS_IN_FLIGHT_PER_ENCODER
            * (settings.embeddings_workers + settings.embeddings_gpu_workers),
            max_batch=MAX_QUERIES_PER_CALL,
            full_batch=FULL_BATCH_QUERIES,
            max_waiting=settings.embeddings_max_queued_searches,
            # What has to wait longer would only be given up after all that time.
            max_wait_s=settings.embeddings_timeout_s / 2,
        )

    async def embed(self, upsert: Upsert) -> UpsertResult:
        """Store segments; the result has nothing missing."""
        result: UpsertResult = await self._encoders.call(
            lambda encoder: encoder.embed.remote(upsert)
        )
        return result

    async def search(self, query: Query) -> Json:
        """Find segments, best first. Searches that wait at the same time share a call."""
        try:
            # From here on and not from the call: while the index restarts, others' calls hold
            # the places of those that wait.
            async with asyncio.timeout(self._timeout_s):
                return await self._searches.submit((query, current_request_id()))
        except TimeoutError:
            raise DeadlineExceeded(
                f"the search wasn't answered within {self._timeout_s:g} s; `serve status` tells "
                "whether encoder and index run"
            ) from None

    @property
    def search_calls(self) -> SearchCalls:
        """What was sent so far, and what waits now."""
        self._calls.waiting = self._searches.waiting
        return self._calls

    async def search_all(self, queries: Sequence[Query]) -> list[Json]:
        """Carry out several searches, encoded together, in one call; raises the first's error."""
        others = self._in_batches
        if others and others + len(queries) > self._max_queued_searches:
            raise Overloaded(
                f"batches with {others} searches are being answered already, and this one has "
                f"{len(queries)}; the limit is {self._max_queued_searches} "
                "(EMBEDDINGS_MAX_QUEUED_SEARCHES); try again later"
            )
        self._in_batches += len(queries)
        try:
            found = await self._find(queries)
        finally:
            self._in_batches -= len(queries)
        answers = []
        for position, answer in enumerate(found):
            if isinstance(answer, InvalidInput | DeadlineExceeded):
                raise type(answer)(f"queries.{position}: {answer.detail}")
            if isinstance(answer, ServiceError):
                raise answer
            answers.append(answer)
        return answers

    async def similar(self, name: SegmentName, search: Search) -> Json:
        """Find segments near to a stored one."""
        return await call(
            lambda: self._index.similar.remote(name, search),
            what="the index",
            timeout_s=self._timeout_s,
        )

    async def encode(
        self, texts: Sequence[str], kind: TextKind, priority: Priority, model: str
    ) -> Encoded:
        """Vectors and numbers of tokens, by one of `models`, of texts that aren't stored."""
        parts: list[Encoded] = await asyncio.gather(
            *(self._encode(part, kind, priority, model) for part in _parts(texts))
        )
        return Encoded(
            np.concatenate([part.vectors for part in parts]),
            tuple(chain.from_iterable(part.truncated for part in parts)),
            tuple(chain.from_iterable(part.tokens for part in parts)),
        )

    async def models(self) -> Sequence[ModelIdentity]:
        """The models that encode for the index, as they were a moment ago."""
        return await self._models.get()

    async def _ask_models(self) -> Sequence[ModelIdentity]:
        models: Sequence[ModelIdentity] = await self._encoders.call(
            lambda encoder: encoder.models.remote()
        )
        return models

    async def delete(self, deletion: DeleteMedia) -> int:
        """Remove segments; returns how many there were."""
        # Not repeated once it may have begun: the second count would be wrong.
        return await call(
            lambda: self._index.delete.remote(deletion),
            what="the index",
            timeout_s=self._timeout_s,
            repeatable=False,
        )

    async def migrate(self, request: MigrationRequest) -> MigrationStatus | None:
        """Change the model, or tell how far that is."""
        # Not repeated once it may have begun: a second switch or rollback would be refused.
        return await call(
            lambda: self._index.migrate.remote(request),
            what="the index",
            timeout_s=self._timeout_s,
            repeatable=request.act is Act.STATUS,
        )

    async def media(self, wanted: MediaList) -> Json:
        """List media items."""
        return await call(
            lambda: self._index.media.remote(wanted), what="the index", timeout_s=self._timeout_s
        )

    async def segments(self, wanted: SegmentList) -> Json:
        """List segments."""
        return await call(
            lambda: self._index.segments.remote(wanted),
            what="the index",
            timeout_s=self._timeout_s,
        )

    async def stats(self) -> IndexStats:
        """Count segments."""
        return await call(
            lambda: self._index.stats.remote(), what="the index", timeout_s=self._timeout_s
        )

    async def check(self) -> IndexStats:
        """Count segments, then encode and search for real."""
        try:
            # The index first and without patience: its own reason is better than a time-out.
            stats = await call(
                lambda: self._index.stats.remote(),
                what="the index",
                timeout_s=HEALTH_TIMEOUT_S,
                patience_s=0,
            )
            if stats.damage is not None:
                raise StoreDamaged(stats.damage.reason)
            # Past the coalescer: health is asked for most when the queue is long.
            await self._encoders.call_cpu(
                lambda encoder: encoder.check.remote(), timeout_s=HEALTH_TIMEOUT_S
            )
            return stats
        except (NotReady, DeadlineExceeded):
            # A call to a deployment that can't start only waits; Serve knows why.
            failure = await asyncio.to_thread(failed_deployment)
            if failure is not None:
                raise failure from None
            raise

    async def _encode(
        self, texts: Sequence[str], kind: TextKind, priority: Priority, model: str
    ) -> Encoded:
        encoded: Encoded = await self._encoders.call(
            lambda encoder: encoder.encode.remote(texts, kind, priority, model)
        )
        return encoded

    async def _search_all(self, asked: Sequence[_Asked]) -> list[Json | ServiceError]:
        work_for(request_id for _, request_id in asked)
        return await self._find([query for query, _ in asked])

    async def _find(self, queries: Sequence[Query]) -> list[Json | ServiceError]:
        self._calls.queries += len(queries)
        self._calls.calls += 1
        # Those that ask the same at the same time share an answer.
        distinct = list(dict.fromkeys(queries))
        answers = await self._encoders.call(lambda encoder: encoder.search.remote(distinct))
        answer_of = dict(zip(distinct, answers, strict=True))
        return [answer_of[query] for query in queries]


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in order, in parts that fit into a call."""
    part: list[str] = []
    chars = 0
    for text in texts:
        if part and (len(part) == MAX_TEXTS_PER_CALL or chars + len(text) > MAX_CHARS_PER_CALL):
            yield part
            part, chars = [], 0
        part.append(text)
        chars += len(text)
    yield part
