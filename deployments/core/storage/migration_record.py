"""What the store notes of the change to another model, beside the vectors themselves."""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from deployments.core.errors import StoreDamaged
from deployments.core.segments import EmbeddingType, Models
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage.store_writer import StoreWriter
from deployments.core.storage_errors import RESTORE, translated

_KEY = "migration"


class Phase(StrEnum):
    """How far a migration has come."""

    RUNNING = "running"
    """Segments are being encoded with the new model; searches use the old one."""
    READY = "ready"
    """Every segment has a vector of the new model; searches use the old one."""
    SWITCHED = "switched"
    """Searches use the new model; the old one's vectors are kept up to date."""
    FAILED = "failed"
    """It can't go on; searches use the old model."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of the best ten is the same with both models: 0…1, the mean over the queries."""

    queries: int
    overlap_at_10: float


@dataclass(frozen=True, slots=True)
class MigrationRecord:
    """A migration. Times are Unix seconds."""

    phase: Phase
    switch_when_ready: bool
    started_at: float
    switched_at: float | None = None
    reason: str | None = None
    """Why it can't go on: for good in FAILED, else until what is tried again succeeds."""
    overlap: dict[EmbeddingType, Overlap] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """A migration, its models, and how many of the segments have vectors of both."""

    record: MigrationRecord
    old: Models
    new: Models
    rows_done: int
    rows: int


class Act(StrEnum):
    """What can be asked of a migration."""

    STATUS = "status"
    START = "start"
    SWITCH = "switch"
    ROLL_BACK = "rollback"
    END = "end"


@dataclass(frozen=True, slots=True)
class MigrationRequest:
    """What to do; the other fields are those of a start: the new model of these types."""

    act: Act
    model: str = ""
    embedding_types: tuple[EmbeddingType, ...] = ()
    switch_when_ready: bool = True


def read(reader: StoreReader) -> MigrationRecord | None:
    """The store's migration, if there is one. Raises StoreDamaged."""
    with translated("Cannot read the store"):
        row = reader.connection.execute("SELECT value FROM meta WHERE key=?", (_KEY,)).fetchone()
    if row is None:
        return None
    try:
        document = json.loads(row[0])
        overlap = {
            EmbeddingType(kind): Overlap(**one) for kind, one in document.pop("overlap").items()
        }
        return MigrationRecord(phase=Phase(document.pop("phase")), overlap=overlap, **document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreDamaged(
            f"What the store says of its migration can't be read. {RESTORE}"
        ) from error


def write(writer: StoreWriter, record: MigrationRecord | None) -> None:
    """Note a migration, or that there is none any more."""
    writer.changed = True
    with translated("Cannot write to the store"):
        writer.connection.execute("DELETE FROM meta WHERE key=?", (_KEY,))
        if record is not None:
            writer.connection.execute(
                "INSERT INTO meta VALUES (?,?)", (_KEY, json.dumps(asdict(record)))
            )
