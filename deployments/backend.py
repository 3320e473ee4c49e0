"""The Ingress deployment: the REST API over calls to Encoder and Index."""

from collections.abc import Sequence

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.calls import call
from deployments.core.coalescer import Coalescer
from deployments.core.segments import (
    DeleteMedia,
    EmbeddingType,
    Hit,
    IndexStats,
    Query,
    Search,
    Upsert,
    UpsertResult,
)
from deployments.core.settings import Settings
from deployments.ingress import create_app

ENCODER_CALLS_IN_FLIGHT = 2
MAX_QUERIES_PER_CALL = 64
HEALTH_TIMEOUT_S = 5.0


class ServeBackend:
    """The Backend on Ray Serve. Serves one event loop."""

    def __init__(
        self, settings: Settings, encoder: DeploymentHandle, index: DeploymentHandle
    ) -> None:
        self._timeout_s = settings.embeddings_timeout_s
        self._encoder = encoder
        self._index = index
        self._searches: Coalescer[Query, list[Hit]] = Coalescer(
            self._search_all,
            max_in_flight=ENCODER_CALLS_IN_FLIGHT,
            max_batch=MAX_QUERIES_PER_CALL,
            max_waiting=settings.embeddings_max_queued_searches,
        )

    async def embed(self, upsert: Upsert) -> UpsertResult:
        """Store segments; the result has nothing missing."""
        return await call(
            lambda: self._encoder.embed.remote(upsert),
            what="the encoder",
            timeout_s=self._timeout_s,
        )

    async def search(self, query: Query) -> list[Hit]:
        """Find segments, best first. Searches that wait at the same time share a call."""
        return await self._searches.submit(query)

    async def delete(self, deletion: DeleteMedia) -> int:
        """Remove segments; returns how many there were."""
        # Not repeated once it may have begun: the second count would be wrong.
        return await call(
            lambda: self._index.delete.remote(deletion),
            what="the index",
            timeout_s=self._timeout_s,
            repeatable=False,
        )

    async def stats(self) -> IndexStats:
        """Count segments."""
        return await call(
            lambda: self._index.stats.remote(), what="the index", timeout_s=self._timeout_s
        )

    async def check(self) -> IndexStats:
        """Encode and search for real, then count segments."""
        # Past the coalescer: health is asked for most when the queue is long.
        await call(
            lambda: self._encoder.search.remote([PROBE]),
            what="the encoder",
            timeout_s=HEALTH_TIMEOUT_S,
        )
        return await call(
            lambda: self._index.stats.remote(), what="the index", timeout_s=HEALTH_TIMEOUT_S
        )

    async def close(self) -> None:
        """Let running calls end and refuse new ones."""
        await self._searches.close()

    async def _search_all(self, queries: Sequence[Query]) -> list[list[Hit]]:
        return await call(
            lambda: self._encoder.search.remote(queries),
            what="the encoder",
            timeout_s=self._timeout_s,
        )


PROBE = Query("health check", Search(EmbeddingType.TRANSCRIPT, top_k=1))


@serve.ingress()
class Ingress:
    """The deployment that answers HTTP; stateless."""

    def __init__(
        self, settings: Settings, encoder: DeploymentHandle, index: DeploymentHandle
    ) -> None:
        self._settings = settings
        self._backend = ServeBackend(settings, encoder, index)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Serve calls this once, after the constructor."""
        return create_app(self._backend, self._settings)
