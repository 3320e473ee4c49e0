"""The routes about media items: lists of them and of their segments, and their removal."""

from typing import Annotated, Protocol

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from deployments.core import fields
from deployments.core.api.list_results import media_after, segments_after
from deployments.core.api.media_schemas import MediaResponse, SegmentsResponse
from deployments.core.api.results import Json, with_timestamp
from deployments.core.api.schemas import DeleteResponse
from deployments.core.errors import NotFound
from deployments.core.search.media_lists import MediaList, SegmentList
from deployments.core.segments import DeleteMedia, EmbeddingType
from deployments.rest.problems import READ_PROBLEMS, WRITE_PROBLEMS, problem_responses

MediaItemId = Annotated[
    fields.PathName, Path(description="As stored, an integer or a string.", examples=["101"])
]
Kind = Annotated[EmbeddingType | None, Query(description="Only of this type.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many a page has at most.")]
Cursor = Annotated[str | None, Query(description="The `next_cursor` of the page before.")]


class MediaBackend(Protocol):
    """What the routes call; every method raises the service's errors only."""

    async def media(self, wanted: MediaList) -> Json:
        """List media items: what `media_json` gives."""
        ...

    async def segments(self, wanted: SegmentList) -> Json:
        """List segments: what `segments_json` gives."""
        ...

    async def delete(self, deletion: DeleteMedia) -> int:
        """Remove segments; returns how many there were."""
        ...


def media_routes(backend: MediaBackend) -> APIRouter:
    """The routes under /media."""
    routes = APIRouter(prefix="/media", tags=["store"])

    @routes.get(
        "", response_model=MediaResponse, responses=READ_PROBLEMS, summary="List media items"
    )
    async def media(
        embedding_type: Kind = None, limit: Limit = 100, cursor: Cursor = None
    ) -> Response:
        """The media items that have segments, of one type or of any, and how many of each type.

        They come in the order of their ids as text.
        """
        wanted = MediaList(limit, embedding_type, media_after(cursor, embedding_type))
        return _json(await backend.media(wanted))

    @routes.get(
        "/{media_item_id:path}/segments",
        response_model=SegmentsResponse,
        responses=READ_PROBLEMS | problem_responses(NotFound),
        summary="List a media item's segments",
    )
    async def segments(
        media_item_id: MediaItemId,
        embedding_type: Kind = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Response:
        """The segments of one type, or of all, in the order of their times.

        A segment without a start counts from its end, and those without any time come last.
        """
        after = segments_after(cursor, media_item_id, embedding_type)
        wanted = SegmentList(media_item_id, limit, embedding_type, after)
        return _json(await backend.segments(wanted))

    @routes.delete(
        "/{media_item_id:path}",
        responses=WRITE_PROBLEMS | problem_responses(NotFound),
        summary="Remove a media item",
    )
    async def delete_media(
        media_item_id: MediaItemId, embedding_type: Kind = None
    ) -> DeleteResponse:
        """Removes the segments of one type, or of all, and says how many there were."""
        deleted = await backend.delete(DeleteMedia(media_item_id, embedding_type))
        return DeleteResponse(
            media_item_id=media_item_id, embedding_type=embedding_type, embeddings_deleted=deleted
        )

    return routes


def _json(document: Json) -> Response:
    return Response(with_timestamp(document), media_type="application/json")
