"""The service by its REST API."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic_core import PydanticCustomError

from deployments.backfill.destination import Postponed, Refused
from deployments.core.api.schemas import EmbedResponse
from deployments.core.api_keys import split_keys
from deployments.core.errors import InvalidInput, ServiceError
from deployments.core.segments import Segment, Upsert, UpsertResult

TIMEOUT_S = 300.0
"""Of a request; the service answers within its own time-out, which is shorter."""

DEFAULT_RETRY_AFTER_S = 2.0
_REFUSED = (httpx.codes.REQUEST_ENTITY_TOO_LARGE, httpx.codes.UNPROCESSABLE_ENTITY)
_POSTPONED = (
    httpx.codes.REQUEST_TIMEOUT,
    httpx.codes.TOO_MANY_REQUESTS,
    httpx.codes.BAD_GATEWAY,
    httpx.codes.SERVICE_UNAVAILABLE,
    httpx.codes.GATEWAY_TIMEOUT,
    httpx.codes.INSUFFICIENT_STORAGE,
)


class HttpDestination:
    """A Destination that posts to `/embed`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def embed(self, upsert: Upsert) -> UpsertResult:
        """Store segments durably; raises as Destination says."""
        try:
            response = await self._client.post("/embed", json=_body(upsert))
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Postponed(
                f"{self._client.base_url} doesn't answer: {reason}", DEFAULT_RETRY_AFTER_S
            ) from error
        if response.status_code == httpx.codes.OK:
            stored = EmbedResponse.model_validate_json(response.content)
            return UpsertResult(
                stored.embeddings_created, stored.changed, stored.removed, stored.truncated
            )
        detail = _detail(response)
        if response.status_code in _REFUSED:
            raise Refused(detail)
        if response.status_code in _POSTPONED and _is_worth_repeating(response):
            raise Postponed(detail, _retry_after_s(response))
        raise ServiceError(f"{self._client.base_url} answered {response.status_code}: {detail}")


@asynccontextmanager
async def by_http(url: str, api_key: str | None) -> AsyncIterator[HttpDestination]:
    """The service at a URL; of several keys, as the service may have, the first one is sent.

    Raises InvalidInput for a URL that isn't HTTP, or for what can't be a key.
    """
    headers = {"Authorization": f"Bearer {_first(api_key)}"} if api_key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    try:
        client = httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_S, limits=limits)
        if client.base_url.scheme not in ("http", "https") or not client.base_url.host:
            raise InvalidInput(f"the URL is {url!r}; expected one such as http://localhost:8004")
    except httpx.InvalidURL as error:
        raise InvalidInput(f"the URL {url!r} can't be used: {error}") from error
    async with client:
        yield HttpDestination(client)


def _first(api_keys: str) -> str:
    try:
        return split_keys(api_keys)[0]
    except PydanticCustomError as error:
        raise InvalidInput(f"the API key can't be used: {error.message()}") from error


def _body(upsert: Upsert) -> dict[str, Any]:
    return {
        "media_item_id": upsert.media_item_id,
        "embedding_type": upsert.embedding_type,
        "replace": upsert.replace,
        "segments": [_segment(segment) for segment in upsert.segments],
    }


def _segment(segment: Segment) -> dict[str, Any]:
    body = {
        **segment.metadata,
        "id": segment.id,
        "text": segment.text,
        "start_time": segment.start_time,
        "end_time": segment.end_time,
    }
    if segment.embedding is not None:
        body["embedding"] = base64.b64encode(segment.embedding).decode()
    return body


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} {response.reason_phrase}"


def _is_worth_repeating(response: httpx.Response) -> bool:
    """A problem document of the service without Retry-After needs an operator instead."""
    own = response.headers.get("Content-Type", "").startswith("application/problem+json")
    return not own or "Retry-After" in response.headers


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return DEFAULT_RETRY_AFTER_S
