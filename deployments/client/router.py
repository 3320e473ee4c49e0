"""A FastAPI router that offers the search in an API service: `GET /embeddings/search`.

    app = FastAPI()
    app.include_router(search_router())

Requests go to the embeddings service with their query string as it is, and its answers come back
as they are. Errors are problem documents (RFC 9457):

    the service says   the caller gets
    422 and other 4xx  the same
    429, 503           the same, with Retry-After
    401, 403           502: the key of this API service is wrong, not the caller
    other 5xx          502
    nothing            503 if it can't be reached, 504 if it takes too long

What a proxy in front of it answers, or another server at its address, is 502, or 503 for 503, and
nothing of it is passed on.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from math import ceil
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from deployments.client.async_client import AsyncClient
from deployments.client.calls import Call
from deployments.client.errors import EmbeddingsError, Refused, TimedOut, Unreachable
from deployments.client.transport import Retries

PATH = "/embeddings/search"
RETRY_AFTER_S = 2

_ONCE_MORE = Retries(attempts=2, first_pause_s=0.05, longest_pause_s=0.5)
"""For a connection that broke; what asks for a longer pause is the caller's to repeat."""

_PARAMETERS = [
    {"name": "query", "in": "query", "required": True, "schema": {"type": "string"}},
    {"name": "top_k", "in": "query", "schema": {"type": "integer", "default": 10}},
    {
        "name": "embedding_type",
        "in": "query",
        "schema": {"enum": ["transcript", "frame", "clip"], "default": "transcript"},
    },
]


def search_router(
    url: str | None = None, api_key: str | None = None, *, timeout_s: float = 30.0
) -> APIRouter:
    """The route, for an app's `include_router`.

    `url` and `api_key` are by default EMBEDDINGS_SERVICE_URL and EMBEDDINGS_API_KEY, read when the
    app starts. The connections are closed when it ends; an app that is mounted in another one, and
    so has no start of its own, gets a connection for each request.
    """

    def connected() -> AsyncClient:
        return AsyncClient(url, api_key, timeout_s=timeout_s, retries=_ONCE_MORE)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, AsyncClient]]:
        async with connected() as client:
            yield {"embeddings_client": client}

    router = APIRouter(lifespan=lifespan, tags=["search"])

    @router.get(
        PATH,
        summary="Search by meaning",
        openapi_extra={"parameters": _PARAMETERS},
        response_class=JSONResponse,
    )
    async def search(request: Request) -> Response:
        """Where something was said or shown; parameters as the embeddings service's."""
        call = Call("GET", f"{PATH}?{request.url.query}", lambda document: document)
        client: AsyncClient | None = getattr(request.state, "embeddings_client", None)
        try:
            if client is not None:
                return JSONResponse(await client.document(call))
            async with connected() as own:
                return JSONResponse(await own.document(call))
        except EmbeddingsError as error:
            return _problem(error)

    return router


def _problem(error: EmbeddingsError) -> Response:
    status, code = HTTPStatus.BAD_GATEWAY, "bad_gateway"
    retry_after_s: float | None = None
    document: dict[str, Any] = {"type": "about:blank"}
    if isinstance(error, Unreachable):
        status, code, retry_after_s = HTTPStatus.SERVICE_UNAVAILABLE, "unreachable", RETRY_AFTER_S
        detail = "the embeddings service doesn't answer"
    elif isinstance(error, TimedOut):
        status, code = HTTPStatus.GATEWAY_TIMEOUT, "timed_out"
        detail = "the embeddings service didn't answer in time"
    elif isinstance(error, Refused) and error.is_of_a_proxy:
        # Its detail has the service's address, which is nothing for the callers.
        detail = "what answers for the embeddings service has no answer of it"
        if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
            status, code, retry_after_s = HTTPStatus(503), "unreachable", RETRY_AFTER_S
    elif not isinstance(error, Refused):
        detail = "the embeddings service gave an answer that isn't known here"
    elif error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        detail = "the embeddings service doesn't accept this API service's key"
    elif error.status >= 500 and error.status != HTTPStatus.SERVICE_UNAVAILABLE:
        detail = error.detail
    else:
        status, code, detail = HTTPStatus(error.status), error.code, error.detail
        retry_after_s = error.retry_after_s
        if error.errors:
            document["errors"] = [
                {"location": each.location, "code": each.code, "message": each.message}
                for each in error.errors
            ]
    document |= {"title": status.phrase, "status": status, "detail": detail, "code": code}
    headers = {} if retry_after_s is None else {"Retry-After": str(ceil(retry_after_s))}
    return JSONResponse(document, status, headers, media_type="application/problem+json")
