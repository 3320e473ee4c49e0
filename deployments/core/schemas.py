"""Requests and responses of the REST API, apart from those of searches."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deployments.core.fields import Name, Seconds, Text, refuse, storable_json
from deployments.core.segments import EmbeddingType, IndexType, Segment, Upsert


class SegmentIn(BaseModel):
    """A segment to store. Every further field is kept and comes back in `metadata`."""

    model_config = ConfigDict(extra="allow")

    id: Name = Field(description="Unique in its media item and type; 1 and '1' are the same.")
    text: Text
    start_time: Seconds | None = Field(default=None, description="Seconds from the start.")
    end_time: Seconds | None = Field(default=None, description="Seconds from the start.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        start, end = self.start_time, self.end_time
        if start is not None and end is not None and end < start:
            raise refuse(
                "reversed_times",
                "end_time ({end}) is before start_time ({start})",
                end=end,
                start=start,
            )
        storable_json(self.model_extra)
        return self


class EmbedRequest(BaseModel):
    """Segments of one media item to store and embed.

    `frames` and `clips` are other names for `segments`, and a frame's `timestamp` for its
    `start_time`.
    """

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "media_item_id": 1,
                    "embedding_type": "transcript",
                    "segments": [
                        {
                            "id": 1,
                            "text": "RSI indicator measures momentum",
                            "start_time": 0,
                            "end_time": 3,
                        },
                        {
                            "id": 2,
                            "text": "When RSI is above 70 it's overbought",
                            "start_time": 3,
                            "end_time": 6,
                            "speaker": "Instructor",
                        },
                    ],
                }
            ]
        },
    )

    media_item_id: Name
    embedding_type: EmbeddingType
    segments: list[SegmentIn]
    replace: bool = Field(
        default=False,
        description="Make these the media item's only segments of this type, in one step.",
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_other_names(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        names = [name for name in ("segments", "frames", "clips") if name in data]
        if len(names) > 1:
            raise refuse(
                "several_lists", "send one list of segments, not {names}", names=" and ".join(names)
            )
        if names and names[0] != "segments":
            data = {**data, "segments": data[names[0]]}
        segments = data.get("segments")
        if data.get("embedding_type") == EmbeddingType.FRAME and isinstance(segments, list):
            data = {**data, "segments": [_frame_time(segment) for segment in segments]}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        positions: dict[str, int] = {}
        for position, segment in enumerate(self.segments):
            first = positions.setdefault(str(segment.id), position)
            if first != position:
                raise refuse(
                    "duplicate_id",
                    "segments {first} and {second} have the same id {id}; each needs its own",
                    first=first,
                    second=position,
                    id=repr(segment.id),
                )
            self._check_repeated_names(position, segment)
        return self

    def _check_repeated_names(self, position: int, segment: SegmentIn) -> None:
        """Segments that name their media item or themselves again have to agree with the rest."""
        further = segment.model_extra or {}
        for name, expected in (("media_item_id", self.media_item_id), ("segment_id", segment.id)):
            if name in further and str(further.pop(name)) != str(expected):
                raise refuse(
                    "contradiction",
                    "segment {position} has a {name} of its own that differs from {expected}",
                    position=position,
                    name=name,
                    expected=repr(expected),
                )

    def upsert(self) -> Upsert:
        """The request as the core's value, without vectors."""
        return Upsert(
            embedding_type=self.embedding_type,
            media_item_id=self.media_item_id,
            segments=tuple(
                Segment(
                    segment.id,
                    segment.text,
                    segment.start_time,
                    segment.end_time,
                    segment.model_extra or {},
                )
                for segment in self.segments
            ),
            replace=self.replace,
        )


def _frame_time(segment: Any) -> Any:
    if isinstance(segment, dict) and "timestamp" in segment and "start_time" not in segment:
        others = {name: value for name, value in segment.items() if name != "timestamp"}
        return {**others, "start_time": segment["timestamp"]}
    return segment


Timestamp = Annotated[str, Field(examples=["2025-11-20T21:00:00Z"])]


def now() -> str:
    """The present time in UTC, to the second, with a `Z`."""
    return as_timestamp(datetime.now(UTC).timestamp())


def as_timestamp(seconds: float) -> str:
    """A time in Unix seconds as all responses write it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class EmbedResponse(BaseModel):
    """All segments of the request are durable and searchable."""

    status: Literal["success"] = "success"
    media_item_id: int | str
    embedding_type: EmbeddingType
    embeddings_created: int = Field(description="Segments of this request that are stored now.")
    changed: int = Field(description="Of these, how many were not stored so before.")
    removed: int = Field(description="Segments that `replace` removed.")
    truncated: int = Field(description="Segments whose text exceeds the model's token limit.")
    timestamp: Timestamp = Field(default_factory=now)


class DeleteResponse(BaseModel):
    """What a deletion removed."""

    status: Literal["success"] = "success"
    media_item_id: int | str
    embedding_type: EmbeddingType | None
    embeddings_deleted: int
    timestamp: Timestamp = Field(default_factory=now)


class SalvageStats(BaseModel):
    """What is left of a damaged store that is only searched."""

    intact_rows: int
    lost_rows: int
    lost_are_counted: bool = Field(description="Whether `lost_rows` are all that are lost.")
    missing_commits: int = Field(description="Answered writes that the store no longer has.")
    media_items: list[str] = Field(description="Media items with lost rows, the first 20 known.")


class Stats(BaseModel):
    """How many vectors of which model the service holds."""

    model_name: str
    embedding_dimension: int
    transcript_vectors: int
    frame_vectors: int
    clip_vectors: int
    total_vectors: int
    salvage: SalvageStats | None = Field(
        default=None, description="Only with EMBEDDINGS_SALVAGE: what is left."
    )


class IndexStatus(BaseModel):
    """How one index is searched at the moment, and the model of its vectors."""

    model_name: str
    embedding_dimension: int
    configured: IndexType = Field(description="What the settings ask for.")
    type: IndexType = Field(
        description="What answers: flat until the first main part of another type is built."
    )
    rows: int
    deleted_rows: int = Field(description="Deleted rows that still take up memory.")
    main_rows: int = Field(description="Rows of the main part; later ones are scanned.")
    building: bool
    build_progress: float | None = Field(description="0 to 1 while a main part is built.")
    recall_at_10: float | None = Field(
        description="Share of the true best ten that is found, for a sample of the index' own "
        "vectors; null if that wasn't measured."
    )


class StatsResponse(Stats):
    """Stats at a time."""

    indices: dict[EmbeddingType, IndexStatus] = Field(default_factory=dict)
    last_write: Timestamp | None = Field(
        default=None,
        description="When something was stored or removed last; null if nothing was since the "
        "index started.",
    )
    encoder_replicas: int | None = Field(
        default=None, description="Encoders that run, as seen in the last 15 s; null if unknown."
    )
    timestamp: Timestamp = Field(default_factory=now)


class HealthResponse(BaseModel):
    """Whether a request could be served now, and if not, why."""

    status: Literal["healthy", "unhealthy"]
    timestamp: Timestamp = Field(default_factory=now)
    service: Literal["embeddings-service"] = "embeddings-service"
    stats: StatsResponse | None = None
    reason: str | None = None


class LiveResponse(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class FieldProblem(BaseModel):
    """One thing that is wrong with a request."""

    location: str = Field(examples=["body.segments.0.text"])
    code: str = Field(examples=["empty_text"])
    message: str = Field(examples=["must contain more than white space"])


class Problem(BaseModel):
    """An error in the form of RFC 9457; `code` is stable and meant for programs."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldProblem] | None = None


def field_problems(errors: Sequence[Any]) -> Iterator[FieldProblem]:
    """Pydantic's errors without the values that caused them, which may be private."""
    for error in errors:
        location = ".".join(str(part) for part in error["loc"]) or "body"
        yield FieldProblem(location=location, code=error["type"], message=error["msg"])
