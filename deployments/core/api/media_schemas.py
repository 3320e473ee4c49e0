"""Responses of the routes that list what is stored."""

from pydantic import BaseModel, Field

from deployments.core.api.search_schemas import SegmentMetadata
from deployments.core.segments import EmbeddingType
from deployments.core.timestamps import Timestamp, now

NextCursor = Field(description="The `cursor` of the next page, null after the last one.")


class ListedMediaItem(BaseModel):
    """A media item with segments."""

    media_item_id: int | str
    segments: dict[EmbeddingType, int] = Field(
        description="How many it has of each type.",
        examples=[{"transcript": 12, "frame": 3, "clip": 0}],
    )


class MediaResponse(BaseModel):
    """A page of media items."""

    media: list[ListedMediaItem]
    next_cursor: str | None = NextCursor
    timestamp: Timestamp = Field(default_factory=now)


class ListedSegment(BaseModel):
    """A stored segment, with `metadata` as in the results of a search."""

    embedding_type: EmbeddingType
    metadata: SegmentMetadata


class SegmentsResponse(BaseModel):
    """A page of segments."""

    segments: list[ListedSegment]
    start_time: int | float | None = Field(
        description="The first time of all segments on all pages, in seconds."
    )
    end_time: int | float | None = Field(description="The last time of them.")
    next_cursor: str | None = NextCursor
    timestamp: Timestamp = Field(default_factory=now)
