"""Responses of the REST API, apart from those of searches."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from deployments.core.api.migration_schemas import MigrationState
from deployments.core.segments import EmbeddingType, IndexType
from deployments.core.timestamps import Timestamp, now


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
    migration: MigrationState | None = Field(
        default=None, description="The change to another model, while there is one."
    )
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
