"""The REST API: each route parses, calls, and answers."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import Response

from deployments import __version__
from deployments.core.api import schemas
from deployments.core.api.embed_requests import EmbedRequest, SegmentIn
from deployments.core.api.migration_schemas import MigrationState
from deployments.core.api.schemas import (
    EmbedResponse,
    HealthResponse,
    IndexStatus,
    LiveResponse,
    StatsResponse,
)
from deployments.core.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    ServiceError,
    StoreDamaged,
)
from deployments.core.recent import Recent
from deployments.core.segments import (
    EmbeddingType,
    IndexStats,
    Upsert,
    UpsertResult,
)
from deployments.core.settings import Settings
from deployments.core.timestamps import as_timestamp
from deployments.rest.access import Access, is_trusted
from deployments.rest.body_limit import BodyLimit
from deployments.rest.docs_page import add_docs_page
from deployments.rest.guide.routes import guide_routes
from deployments.rest.limits import check_text
from deployments.rest.media_routes import MediaBackend, media_routes
from deployments.rest.migration_routes import MigrationBackend, migration_routes
from deployments.rest.moment_routes import moment_routes
from deployments.rest.openai_errors import OpenAIErrors
from deployments.rest.openai_routes import EmbeddingBackend, openai_routes
from deployments.rest.openapi import complete_openapi
from deployments.rest.page_routes import page_routes
from deployments.rest.problems import (
    BODY_PROBLEMS,
    WRITE_PROBLEMS,
    add_error_handlers,
    problem_responses,
)
from deployments.rest.request_log import Observe, RequestLog
from deployments.rest.search_routes import SearchBackend, search_routes
from deployments.rest.secure_headers import SecureHeaders

DESCRIPTION = """Semantic search over the transcript segments, frames and clips of media items.

Store segments with `POST /embed`, find them with `POST /search`. Errors are
`application/problem+json`
(RFC 9457) with a stable `code`; answers with `Retry-After` are worth repeating, and repeating is
always safe."""

STRANGERS_CHECK_S = 1.0


class Backend(MediaBackend, SearchBackend, EmbeddingBackend, MigrationBackend, Protocol):
    """What the routes call; every method raises the service's errors only."""

    @property
    def encoder_replicas(self) -> int | None:
        """How many encoders run, as far as is known."""
        ...

    async def embed(self, upsert: Upsert) -> UpsertResult:
        """Store segments; the result has nothing missing."""
        ...

    async def stats(self) -> IndexStats:
        """Count segments."""
        ...

    async def check(self) -> IndexStats:
        """Encode and search for real, then count segments."""
        ...


def create_app(backend: Backend, settings: Settings, observe: Observe = lambda *_: None) -> FastAPI:
    """The ASGI application that answers the REST API with a backend."""
    app = FastAPI(
        title="embeddings-service",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
    )
    # The last one added is the outermost.
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.embeddings_max_body_bytes,
        max_held_bytes=settings.embeddings_max_held_bytes,
    )
    app.add_middleware(Access, settings=settings)
    app.add_middleware(OpenAIErrors)
    app.add_middleware(SecureHeaders)
    app.add_middleware(RequestLog, observe=observe)
    add_error_handlers(app)
    add_docs_page(app)

    @app.post(
        "/embed",
        responses=WRITE_PROBLEMS | BODY_PROBLEMS | problem_responses(Conflict),
        tags=["store"],
        summary="Store and embed segments",
    )
    async def embed(request: EmbedRequest) -> EmbedResponse:
        """Answers when all segments are durable and searchable.

        A segment with the id of a stored one replaces it; what hasn't changed is neither stored
        nor encoded again, so a request can be repeated safely.
        """
        _check_segments(request.segments, settings)
        result = await backend.embed(request.upsert())
        return EmbedResponse(
            media_item_id=request.media_item_id,
            embedding_type=request.embedding_type,
            embeddings_created=result.stored,
            changed=result.changed,
            removed=result.removed,
            truncated=result.truncated,
        )

    app.include_router(media_routes(backend))
    app.include_router(search_routes(backend, settings))
    app.include_router(moment_routes(backend, settings))
    app.include_router(migration_routes(backend))
    app.include_router(openai_routes(backend, settings))
    app.include_router(page_routes(settings))
    app.include_router(guide_routes())

    @app.get(
        "/stats",
        responses=problem_responses(NotReady, DeadlineExceeded, StoreDamaged),
        tags=["operations"],
        summary="Model and number of vectors",
    )
    async def stats() -> StatsResponse:
        return _stats_response(await backend.stats(), backend.encoder_replicas)

    unhealthy: dict[int | str, dict[str, Any]] = {
        503: {"model": HealthResponse, "description": "A request could not be served; why"}
    }

    @app.get("/health", responses=unhealthy, tags=["operations"], summary="Health")
    async def health(response: Response) -> HealthResponse:
        """Encodes and searches for real; 503 with the reason if a request could not be served."""
        try:
            counts = await backend.check()
        except ServiceError as error:
            response.status_code = 503
            return HealthResponse(status="unhealthy", reason=f"{error.title}: {error.detail}")
        reason = None if counts.salvage is None else f"Salvage, read-only: {counts.salvage.summary}"
        found = _stats_response(counts, backend.encoder_replicas)
        return HealthResponse(status="healthy", stats=found, reason=reason)

    async def health_status() -> int:
        response = Response()
        await health(response)
        return response.status_code

    # Whoever needs no key can't make the service encode all the time either.
    recent_status = Recent(health_status, STRANGERS_CHECK_S)

    @app.get("/health/ready", responses=unhealthy, tags=["operations"], summary="Ready")
    async def ready(request: Request, response: Response) -> HealthResponse:
        """As `/health`; without an API key where there is one, the status only."""
        if is_trusted(request.scope):
            return await health(response)
        response.status_code = await recent_status.get()
        return HealthResponse(status="healthy" if response.status_code == 200 else "unhealthy")

    @app.get("/health/live", tags=["operations"], summary="Live")
    async def live() -> LiveResponse:
        """The process answers; says nothing about whether it can search."""
        return LiveResponse()

    complete_openapi(app)
    return app


def _check_segments(segments: Sequence[SegmentIn], settings: Settings) -> None:
    if len(segments) > settings.embeddings_max_segments:
        raise InvalidInput(
            f"the request has {len(segments)} segments; at most {settings.embeddings_max_segments} "
            "(EMBEDDINGS_MAX_SEGMENTS) are allowed, split it into several"
        )
    for position, segment in enumerate(segments):
        check_text(f"the text of segment {position}", segment.text or "", settings)


def _stats_response(stats: IndexStats, encoder_replicas: int | None) -> StatsResponse:
    model = stats.models[EmbeddingType.TRANSCRIPT]
    return StatsResponse(
        model_name=model.name,
        embedding_dimension=model.dimension,
        transcript_vectors=stats.vectors[EmbeddingType.TRANSCRIPT],
        frame_vectors=stats.vectors[EmbeddingType.FRAME],
        clip_vectors=stats.vectors[EmbeddingType.CLIP],
        total_vectors=sum(stats.vectors.values()),
        salvage=None if stats.salvage is None else schemas.SalvageStats(**asdict(stats.salvage)),
        indices={
            kind: IndexStatus(
                **asdict(state),
                model_name=stats.models[kind].name,
                embedding_dimension=stats.models[kind].dimension,
            )
            for kind, state in stats.indices.items()
        },
        migration=None if stats.migration is None else MigrationState.of(stats.migration),
        last_write=None if stats.last_write_at is None else as_timestamp(stats.last_write_at),
        encoder_replicas=encoder_replicas,
    )
