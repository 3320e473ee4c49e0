"""Requests that store segments."""

from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from deployments.core.encoding.segment_images import IMAGE, IMAGE_PATH
from deployments.core.fields import Name, Seconds, has_content, refuse, storable_json, storable_text
from deployments.core.own_vectors import Embedding
from deployments.core.segments import EmbeddingType, Segment, Upsert


class SegmentIn(BaseModel):
    """A segment to store. Every further field is kept and comes back in `metadata`.

    Where the index has a model of images, `image` (base64) or `image_path` is what it encodes, and
    `image` isn't kept.
    """

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "anyOf": [{"required": [name]} for name in ("text", "embedding", IMAGE, IMAGE_PATH)]
        },
    )

    id: Name = Field(description="Unique in its media item and type; 1 and '1' are the same.")
    embedding: Embedding | None = Field(
        default=None,
        description="The segment's vector, made elsewhere with the model of this index: numbers, "
        "or base64 of little-endian float32. It is normalised, and `text` isn't encoded then.",
    )
    text: str | None = Field(
        default=None,
        description="Required unless there is an `embedding` or an image; found by its words in "
        "any case.",
    )
    start_time: Seconds | None = Field(default=None, description="Seconds from the start.")
    end_time: Seconds | None = Field(default=None, description="Seconds from the start.")

    @field_validator("text")
    @classmethod
    def _check_text(cls, text: str | None, others: ValidationInfo) -> str | None:
        if text is None:
            return None
        # A wrong embedding isn't among the others, and is problem enough.
        bare = others.data.get("embedding", b"") is None
        return has_content(text) if bare else storable_text(text)

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
        further = self.model_extra or {}
        storable_json(further)
        others = (self.text, self.embedding, further.get(IMAGE), further.get(IMAGE_PATH))
        if all(each is None for each in others):
            raise refuse("missing", "a text is required, unless there is an embedding or an image")
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
                },
                {
                    "media_item_id": 1,
                    "embedding_type": "frame",
                    "segments": [
                        {
                            "id": 1,
                            "embedding": [0.12, -0.43, 0.08, 0.89],
                            "timestamp": 12.5,
                            "image_path": "frames/0300.jpg",
                        }
                    ],
                },
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
                    segment.text or "",
                    segment.start_time,
                    segment.end_time,
                    segment.model_extra or {},
                    segment.embedding,
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
