"""The state of an index in plain numbers, for those who watch over it."""

from dataclasses import dataclass, field

from deployments.core.damage import Damage, Salvage
from deployments.core.segments import EmbeddingType
from deployments.core.vectors.checkpoint import Flaw


@dataclass(frozen=True, slots=True)
class HeldCheckpoint:
    """The last row that a checkpoint on disk knows of, and when it was written (Unix seconds)."""

    last_sequence: int
    written_at: float


@dataclass(frozen=True, slots=True)
class IndexCondition:
    """What an index holds, and what became of its files. Counts are of now, the rest as named."""

    vectors: dict[EmbeddingType, int]
    commit_id: int
    last_sequence: int
    recovery_s: float
    """How long the last start took."""
    rebuilt: dict[EmbeddingType, Flaw] = field(default_factory=dict)
    """Types whose checkpoint could not be used at the last start."""
    checkpoints: dict[EmbeddingType, HeldCheckpoint] = field(default_factory=dict)
    damage: Damage | None = None
    salvage: Salvage | None = None
