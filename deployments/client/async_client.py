"""The client for programs that use asyncio."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from deployments.client import calls
from deployments.client.batches import BATCH_SIZE, Batch, Batches, InFlight, Progress
from deployments.client.calls import (
    Call,
    EmbeddingType,
    MomentOptions,
    SearchOptions,
    SimilarOptions,
)
from deployments.client.errors import EmbeddingsError
from deployments.client.results import (
    Deleted,
    Embeddings,
    Health,
    Hits,
    Id,
    Json,
    ListedSegment,
    MediaItem,
    Moment,
    Stats,
    Stored,
    StoredMany,
)
from deployments.client.transport import (
    Retries,
    document,
    headers,
    request,
    service_url,
    timeout,
    translated,
    value,
)

T = TypeVar("T")


class AsyncClient:
    """As Client, with methods to await; for one event loop."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 120.0,
        retries: Retries = Retries(),  # noqa: B008 - it is frozen
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = service_url(url)
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=headers(api_key),
            timeout=timeout(timeout_s),
            # A connection for each call at once: how many there are is for the caller to say.
            limits=httpx.Limits(),
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def embed(
        self,
        media_item_id: Id,
        segments: Iterable[Json],
        embedding_type: EmbeddingType = "transcript",
        *,
        replace: bool = False,
    ) -> Stored:
        """Store segments of a media item, as `Client.embed`."""
        return await self._send(
            calls.embed(media_item_id, segments, embedding_type, replace=replace)
        )

    async def store_many(
        self,
        segments: Iterable[Json] | AsyncIterable[Json],
        embedding_type: EmbeddingType = "transcript",
        *,
        media_item_id: Id | None = None,
        batch_size: int = BATCH_SIZE,
        in_flight: int = 4,
        progress: Progress | None = None,
    ) -> StoredMany:
        """Store segments from an iterator, which may be asynchronous, as `Client.store_many`."""
        batches = Batches(media_item_id, batch_size)
        under_way = InFlight[asyncio.Task[Stored]](in_flight, progress)

        async def settle_one() -> None:
            done, _ = await asyncio.wait(under_way.calls, return_when=asyncio.FIRST_COMPLETED)
            under_way.settle(done)

        async def send(batch: Batch) -> None:
            while not under_way.has_room_for(batch):
                await settle_one()
            embed = self.embed(batch.media_item_id, batch.segments, embedding_type)
            under_way.add(asyncio.create_task(embed), batch)

        try:
            async for segment in _each(segments):
                for batch in batches.add(segment):
                    await send(batch)
            for batch in batches.rest():
                await send(batch)
            while under_way.calls:
                await settle_one()
        finally:
            for call in under_way.calls:
                call.cancel()
            await asyncio.gather(*under_way.calls, return_exceptions=True)
        return under_way.stored

    async def search(self, query: str | None = None, **options: Unpack[SearchOptions]) -> Hits:
        """Find segments by a query, or by an `embedding` of it; options as in `POST /search`."""
        return await self._send(calls.search(query, options))

    async def search_batch(
        self, queries: Iterable[str | Json], **options: Unpack[SearchOptions]
    ) -> tuple[Hits, ...]:
        """Several searches in one request; a query is a text, or a mapping with its own options."""
        return await self._send(calls.search_batch(queries, options))

    async def similar(
        self,
        media_item_id: Id,
        segment_id: Id,
        embedding_type: EmbeddingType = "transcript",
        **options: Unpack[SimilarOptions],
    ) -> Hits:
        """Find segments whose meaning is near to that of a stored one."""
        return await self._send(calls.similar(media_item_id, segment_id, embedding_type, options))

    async def moments(
        self, query: str | None = None, **options: Unpack[MomentOptions]
    ) -> tuple[Moment, ...]:
        """Find stretches of media items, by what is said and shown in them."""
        return await self._send(calls.moments(query, options))

    async def encode(
        self, texts: str | Sequence[str], *, input_type: str = "document", model: str | None = None
    ) -> Embeddings:
        """The vectors of texts, which are not stored, as `Client.encode`."""
        if model is None:
            model = await self._send(calls.model_name())
        parts = [
            await self._send(calls.encode(part, model, input_type))
            for part in calls.text_parts(texts)
        ]
        return Embeddings.joined(model, parts)

    async def delete_media(
        self, media_item_id: Id, embedding_type: EmbeddingType | None = None
    ) -> Deleted:
        """Remove a media item, or one type of it, as `Client.delete_media`."""
        return await self._send(calls.delete_media(media_item_id, embedding_type))

    async def media(
        self, embedding_type: EmbeddingType | None = None, *, page_size: int = 1000
    ) -> AsyncIterator[MediaItem]:
        """All media items that have segments; reads page by page as it goes on."""
        cursor: str | None = None
        while True:
            page = await self._send(calls.media(embedding_type, page_size, cursor))
            for item in page.items:
                yield item
            if (cursor := page.next_cursor) is None:
                return

    async def segments(
        self,
        media_item_id: Id,
        embedding_type: EmbeddingType | None = None,
        *,
        page_size: int = 1000,
    ) -> AsyncIterator[ListedSegment]:
        """A media item's segments by time; reads page by page as it goes on."""
        cursor: str | None = None
        while True:
            call = calls.segments(media_item_id, embedding_type, page_size, cursor)
            page = await self._send(call)
            for segment in page.items:
                yield segment
            if (cursor := page.next_cursor) is None:
                return

    async def stats(self) -> Stats:
        """The model, and how many vectors there are."""
        return await self._send(calls.stats())

    async def health(self) -> Health:
        """Whether a request could be served now; it says why not rather than raise."""
        return await self._send(calls.health())

    async def document(self, call: Call[Any]) -> Any:
        """The answer to a call as the service's JSON."""
        arguments = request(call)
        attempt = 0
        while True:
            try:
                with translated(self.url):
                    response = await self._http.request(**arguments)
                return document(call, response)
            except EmbeddingsError as error:
                attempt += 1
                pause = self._retries.pause_s(call, error, attempt)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def _send(self, call: Call[T]) -> T:
        return value(call, await self.document(call))


async def _each(segments: Iterable[Json] | AsyncIterable[Json]) -> AsyncIterator[Json]:
    if isinstance(segments, AsyncIterable):
        async for segment in segments:
            yield segment
    else:
        for segment in segments:
            yield segment
