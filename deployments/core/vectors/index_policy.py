"""Which type of index a type's rows should have, and when its main part should be built again."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from deployments.core.segments import EmbeddingType, IndexType
from deployments.core.vectors import gpu
from deployments.core.vectors.collection import Snapshot

_CANNOT_GROW = 2**62


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers of rows at which something is built.

    Scanning a row takes about as long as its dimension + 32 multiplications; the limits that are
    about time are in such units of work, 4 million of which take about a millisecond.
    """

    least_rows: int = 2048
    """Below, every type is flat: nothing is faster."""
    scanned_work: int = 8_000_000
    """`auto` scans up to here: 19,000 rows of 384 dimensions."""
    fresh_work: int = 2_000_000
    """Rows behind the main part are added to it from here: 4,800 rows of 384 dimensions."""
    deleted_share: float = 0.25
    """A main part with more deleted rows is built anew."""
    growth: Mapping[IndexType, int] = field(
        default_factory=lambda: {
            IndexType.FLAT: _CANNOT_GROW,
            IndexType.HNSW: 16,
            IndexType.IVF: 4,
            IndexType.RABITQ: 4,
            IndexType.PQ: 4,
        }
    )
    """An index is trained anew with so many times the rows that it was trained for."""

    @staticmethod
    def work(rows: int, dimension: int) -> int:
        """What scanning so many rows takes."""
        return rows * (dimension + 32)


@dataclass(frozen=True, slots=True)
class Plan:
    """A main part to build. `flat` without a GPU stands for having none."""

    type: IndexType
    extends: bool
    """Whether fresh rows are added to a copy of the present one."""


@dataclass(frozen=True, slots=True)
class IndexPolicy:
    """The configured types of indices; flat where nothing is said."""

    types: Mapping[EmbeddingType, IndexType] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)

    def configured(self, kind: EmbeddingType) -> IndexType:
        """What the settings ask for."""
        return self.types.get(kind, IndexType.FLAT)

    def wanted_type(self, kind: EmbeddingType, snapshot: Snapshot) -> IndexType:
        """The type of index that such rows should have now."""
        configured, rows = self.configured(kind), len(snapshot)
        if rows < self.limits.least_rows:
            return IndexType.FLAT
        if configured is not IndexType.AUTO:
            return configured
        work = self.limits.work(rows, snapshot.vectors.shape[1])
        if snapshot.main is not None:
            # Not back and forth at the limit.
            work *= 2
        return IndexType.FLAT if work < self.limits.scanned_work else IndexType.PQ

    def plan(self, kind: EmbeddingType, snapshot: Snapshot) -> Plan | None:
        """What should be built now, if anything."""
        main, wanted = snapshot.main, self.wanted_type(kind, snapshot)
        if main is None:
            has_main = wanted is not IndexType.FLAT or (
                gpu.takes(wanted) and len(snapshot) >= self.limits.least_rows
            )
            return Plan(wanted, extends=False) if has_main else None
        if main.type is not wanted:
            return Plan(wanted, extends=False)
        deleted = deleted_main_rows(snapshot)
        grown = len(snapshot) > self.limits.growth[wanted] * main.trained_rows
        if grown or deleted > self.limits.deleted_share * len(main):
            return Plan(wanted, extends=False)
        work = self.limits.work(fresh_rows(snapshot), snapshot.vectors.shape[1])
        return Plan(wanted, extends=True) if work >= self.limits.fresh_work else None


def fresh_rows(snapshot: Snapshot) -> int:
    """How many rows came after the main part, deleted ones included."""
    if snapshot.main is None:
        return len(snapshot.sequences)
    return len(snapshot.sequences) - _split(snapshot)


def deleted_main_rows(snapshot: Snapshot) -> int:
    """How many rows of the main part have been deleted."""
    if snapshot.main is None:
        return 0
    split = _split(snapshot)
    alive = split - int(np.searchsorted(snapshot.dead, split))
    return len(snapshot.main) - alive


def _split(snapshot: Snapshot) -> int:
    assert snapshot.main is not None
    return int(np.searchsorted(snapshot.sequences, snapshot.main.last_sequence, "right"))
