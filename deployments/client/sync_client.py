"""The client for programs that wait for each answer."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from deployments.client import calls
from deployments.client.abandon import Requests
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


class Client:
    """A connection to the embeddings service; several threads may use one.

    `url` is by default EMBEDDINGS_SERVICE_URL, else http://localhost:8004, and `api_key`
    EMBEDDINGS_API_KEY, if any. Each method raises an EmbeddingsError, after `retries` where
    repeating is safe and may help. Close it, or use it in `with`.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 120.0,
        retries: Retries = Retries(),  # noqa: B008 - it is frozen
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = service_url(url)
        self._retries = retries
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": headers(api_key),
            "timeout": timeout(timeout_s),
        }
        if transport is None:
            # Made once, since that takes longer than a request.
            self._options["verify"] = httpx.create_ssl_context()
        self._transport = transport
        self._http = httpx.Client(**self._options, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def embed(
        self,
        media_item_id: Id,
        segments: Iterable[Json],
        embedding_type: EmbeddingType = "transcript",
        *,
        replace: bool = False,
    ) -> Stored:
        """Store segments of a media item: `id`, `text`, `start_time`, `end_time`, and any other.

        An `embedding`, a list or an array, is stored instead of the text's. With `replace` they
        become its only ones of the type. All go in one request, of which the service limits the
        size; for more use `store_many`.
        """
        return self._send(calls.embed(media_item_id, segments, embedding_type, replace=replace))

    def store_many(
        self,
        segments: Iterable[Json],
        embedding_type: EmbeddingType = "transcript",
        *,
        media_item_id: Id | None = None,
        batch_size: int = BATCH_SIZE,
        in_flight: int = 4,
        progress: Progress | None = None,
    ) -> StoredMany:
        """Store segments from an iterator, each with its `media_item_id` unless it is given here.

        At most some thousand are in memory and `in_flight` requests under way. `progress` is called
        with the sums after each. Raises the first error, and ValueError for a segment without id;
        then, as after Ctrl-C, requests under way are cut off, and may have been applied or not.
        """
        batches = Batches(media_item_id, batch_size)
        under_way = InFlight[Future[Stored]](in_flight, progress)
        requests = Requests()

        def settle_one() -> None:
            under_way.settle(wait(under_way.calls, return_when=FIRST_COMPLETED).done)

        def start(batch: Batch, http: httpx.Client) -> Future[Stored]:
            call = calls.embed(batch.media_item_id, batch.segments, embedding_type, replace=False)
            return requests.start(lambda: value(call, self._document(call, http, requests)))

        with ExitStack() as connections:
            http = self._http
            if self._transport is None:
                # Connections that nobody else uses, so that they can be cut off.
                http = connections.enter_context(httpx.Client(**self._options))
            try:
                for batch in batches.all_of(segments):
                    while not under_way.has_room_for(batch):
                        settle_one()
                    under_way.add(start(batch, http), batch)
                while under_way.calls:
                    settle_one()
            except BaseException:
                requests.abandon()
                raise
        return under_way.stored

    def search(self, query: str | None = None, **options: Unpack[SearchOptions]) -> Hits:
        """Find segments by a query, or by an `embedding` of it; options as in `POST /search`."""
        return self._send(calls.search(query, options))

    def search_batch(
        self, queries: Iterable[str | Json], **options: Unpack[SearchOptions]
    ) -> tuple[Hits, ...]:
        """Several searches in one request; a query is a text, or a mapping with its own options."""
        return self._send(calls.search_batch(queries, options))

    def similar(
        self,
        media_item_id: Id,
        segment_id: Id,
        embedding_type: EmbeddingType = "transcript",
        **options: Unpack[SimilarOptions],
    ) -> Hits:
        """Find segments whose meaning is near to that of a stored one."""
        return self._send(calls.similar(media_item_id, segment_id, embedding_type, options))

    def moments(
        self, query: str | None = None, **options: Unpack[MomentOptions]
    ) -> tuple[Moment, ...]:
        """Find stretches of media items, by what is said and shown in them."""
        return self._send(calls.moments(query, options))

    def encode(
        self, texts: str | Sequence[str], *, input_type: str = "document", model: str | None = None
    ) -> Embeddings:
        """The vectors of texts, which are not stored; `input_type` is `query` or `document`.

        Any number of texts, in several requests. Without `model` the service is asked for the first
        one that it has.
        """
        if model is None:
            model = self._send(calls.model_name())
        parts = [
            self._send(calls.encode(part, model, input_type)) for part in calls.text_parts(texts)
        ]
        return Embeddings.joined(model, parts)

    def delete_media(
        self, media_item_id: Id, embedding_type: EmbeddingType | None = None
    ) -> Deleted:
        """Remove a media item, or one type of it, and tell how many segments there were.

        The request is only repeated where the first one can't have removed anything.
        """
        return self._send(calls.delete_media(media_item_id, embedding_type))

    def media(
        self, embedding_type: EmbeddingType | None = None, *, page_size: int = 1000
    ) -> Iterator[MediaItem]:
        """All media items that have segments; reads page by page as it goes on."""
        cursor: str | None = None
        while True:
            page = self._send(calls.media(embedding_type, page_size, cursor))
            yield from page.items
            if (cursor := page.next_cursor) is None:
                return

    def segments(
        self,
        media_item_id: Id,
        embedding_type: EmbeddingType | None = None,
        *,
        page_size: int = 1000,
    ) -> Iterator[ListedSegment]:
        """A media item's segments by time; reads page by page as it goes on."""
        cursor: str | None = None
        while True:
            page = self._send(calls.segments(media_item_id, embedding_type, page_size, cursor))
            yield from page.items
            if (cursor := page.next_cursor) is None:
                return

    def stats(self) -> Stats:
        """The model, and how many vectors there are."""
        return self._send(calls.stats())

    def health(self) -> Health:
        """Whether a request could be served now; it says why not rather than raise."""
        return self._send(calls.health())

    def document(self, call: Call[Any]) -> Any:
        """The answer to a call as the service's JSON."""
        return self._document(call, self._http)

    def _document(
        self, call: Call[Any], http: httpx.Client, requests: Requests | None = None
    ) -> Any:
        arguments = request(call)
        extensions = {} if requests is None else {"trace": requests.trace}
        rest = time.sleep if requests is None else requests.pause
        attempt, pause = 0, 0.0
        while True:
            rest(pause)
            try:
                with translated(self.url):
                    response = http.request(**arguments, extensions=extensions)
                return document(call, response)
            except EmbeddingsError as error:
                attempt += 1
                again = self._retries.pause_s(call, error, attempt)
                if again is None:
                    raise
                pause = again

    def _send(self, call: Call[T]) -> T:
        return value(call, self.document(call))
