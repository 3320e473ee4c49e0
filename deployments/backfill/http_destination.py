"""The service by its REST API."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from pydantic_core import PydanticCustomError

from deployments.backfill.destination import Postponed, Unexplained
from deployments.backfill.destination import Refused as RefusedSegments
from deployments.client.async_client import AsyncClient
from deployments.client.errors import EmbeddingsError, Refused, TimedOut, Unreachable
from deployments.client.transport import Retries
from deployments.core.api_keys import split_keys
from deployments.core.errors import InvalidInput, ServiceError
from deployments.core.segments import Segment, Upsert, UpsertResult

TIMEOUT_S = 300.0
"""Of a request; the service answers within its own time-out, which is shorter."""

DEFAULT_RETRY_AFTER_S = 2.0
_OF_THE_SEGMENTS = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY)
_OF_A_BUSY_PROXY = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)


class HttpDestination:
    """A Destination that posts to `/embed`."""

    def __init__(self, client: AsyncClient) -> None:
        """`client` must not retry: the backfill does, and sends less meanwhile."""
        self._client = client

    async def embed(self, upsert: Upsert) -> UpsertResult:
        """Store segments durably; raises as Destination says."""
        try:
            stored = await self._client.embed(
                upsert.media_item_id,
                map(_document, upsert.segments),
                upsert.embedding_type.value,
                replace=upsert.replace,
            )
        except EmbeddingsError as error:
            raise _outcome(error) from error
        return UpsertResult(
            stored.embeddings_created, stored.changed, stored.removed, stored.truncated
        )


@asynccontextmanager
async def by_http(url: str, api_key: str | None) -> AsyncIterator[HttpDestination]:
    """The service at a URL; of several keys, as the service may have, the first one is sent.

    Raises InvalidInput for a URL that isn't HTTP, or for what can't be a key.
    """
    key = _first(api_key) if api_key else ""
    try:
        client = AsyncClient(url, key, timeout_s=TIMEOUT_S, retries=Retries(attempts=1))
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    async with client:
        yield HttpDestination(client)


def _first(api_keys: str) -> str:
    try:
        return split_keys(api_keys)[0]
    except PydanticCustomError as error:
        raise InvalidInput(f"the API key can't be used: {error.message()}") from error


def _document(segment: Segment) -> dict[str, Any]:
    document = {
        **segment.metadata,
        "id": segment.id,
        "start_time": segment.start_time,
        "end_time": segment.end_time,
    }
    # An empty text counts as one that was meant to say something.
    if segment.text:
        document["text"] = segment.text
    if segment.embedding is not None:
        document["embedding"] = base64.b64encode(segment.embedding).decode()
    return document


def _outcome(error: EmbeddingsError) -> Exception:
    """What one of the client's errors means for a backfill."""
    if isinstance(error, Unreachable | TimedOut):
        return Postponed(error.detail, DEFAULT_RETRY_AFTER_S)
    if not isinstance(error, Refused):
        return ServiceError(error.detail)
    if error.status in _OF_THE_SEGMENTS:
        return RefusedSegments(error.detail)
    # The service names what passes by Retry-After; what stands before it may not.
    if error.retry_after_s is not None:
        return Postponed(error.detail, error.retry_after_s)
    if error.is_of_a_proxy and error.status in _OF_A_BUSY_PROXY:
        return Postponed(error.detail, DEFAULT_RETRY_AFTER_S)
    # Serve answers so itself for an Ingress that was killed; the service's own says a code.
    if error.is_of_a_proxy and error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unexplained(error.detail, DEFAULT_RETRY_AFTER_S)
    return ServiceError(error.detail)
