"""Requests and responses about the change to another model."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from deployments.core.segments import EmbeddingType
from deployments.core.storage.migration_record import Act, MigrationRequest, MigrationStatus, Phase
from deployments.core.timestamps import Timestamp, as_timestamp, now

ModelName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1024)]


class MigrationBody(BaseModel):
    """Which model is wanted, and for what."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model": "all-MiniLM-L12-v2"}]}
    )

    model: ModelName = Field(
        description="As in EMBEDDING_MODEL: a name on the Hugging Face hub, or a folder."
    )
    embedding_types: list[EmbeddingType] = Field(
        default_factory=lambda: list(EmbeddingType),
        min_length=1,
        description="The indices that get the model; by default all.",
    )
    switch_when_ready: bool = Field(
        default=True,
        description="Whether searches use the new model as soon as every segment has a vector of "
        "it; if not, `POST /migrations/switch` does it.",
    )

    def request(self) -> MigrationRequest:
        """The request as the core's value."""
        kinds = tuple(kind for kind in EmbeddingType if kind in self.embedding_types)
        return MigrationRequest(Act.START, self.model, kinds, self.switch_when_ready)


class MigratedIndex(BaseModel):
    """An index whose model becomes another one."""

    from_model: str
    to_model: str
    overlap_at_10: float | None = Field(
        description="Share of the best ten that both models find, for stored texts as queries; "
        "null as long as that isn't measured."
    )
    queries: int = Field(description="With how many queries it was measured.")


class MigrationState(BaseModel):
    """How far the change to another model is."""

    state: Phase = Field(
        description="`running`: segments get vectors of the new model. `ready`: all have one. "
        "`switched`: searches use the new model, and the vectors of the old one are kept up to "
        "date. `failed`: see `reason`; searches use the old model."
    )
    indices: dict[EmbeddingType, MigratedIndex]
    rows_done: int = Field(description="Segments that have vectors of both models.")
    rows: int = Field(description="All segments.")
    switch_when_ready: bool
    started: Timestamp
    switched: Timestamp | None
    reason: str | None = Field(description="Why nothing more is done until someone asks for it.")

    @classmethod
    def of(cls, status: MigrationStatus) -> Self:
        """The state of a migration."""
        record = status.record
        changed = [kind for kind, old in status.old.items() if old != status.new.get(kind)]
        measured = record.overlap
        return cls(
            state=record.phase,
            indices={
                kind: MigratedIndex(
                    from_model=status.old[kind].name,
                    to_model=status.new[kind].name,
                    overlap_at_10=measured[kind].overlap_at_10 if kind in measured else None,
                    queries=measured[kind].queries if kind in measured else 0,
                )
                for kind in changed
            },
            rows_done=status.rows_done,
            rows=status.rows,
            switch_when_ready=record.switch_when_ready,
            started=as_timestamp(record.started_at),
            switched=None if record.switched_at is None else as_timestamp(record.switched_at),
            reason=record.reason,
        )


class MigrationResponse(BaseModel):
    """The migration as it is now, null if there is none."""

    migration: MigrationState | None
    timestamp: Timestamp = Field(default_factory=now)

    @classmethod
    def of(cls, status: MigrationStatus | None) -> Self:
        """The response that tells of a migration."""
        return cls(migration=None if status is None else MigrationState.of(status))
