"""The unchanging main part of a type's rows, which finds candidates without scanning vectors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.core.segments import IndexType, Vectors
from deployments.core.vectors import gpu, main_part_types

Sequences = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class MainPart:
    """A Faiss index of the rows that there were at one commit. Any number of threads may search.

    It holds no scores that count and no row that can't be missed: what it finds is looked up in
    the rows of the present, and scored there.
    """

    type: IndexType
    index: Any
    sequences: Sequences
    """Sequence numbers of the index' rows, (rows,) int64, ascending."""
    last_sequence: int
    """Rows of the type up to here are in the index, unless they were deleted before the build."""
    commit_id: int
    """The store's commit that the rows are of."""
    trained_rows: int
    """How many rows there were when the index was trained."""
    build_s: float
    """Seconds that building it anew would take."""

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def is_exact(self) -> bool:
        """Whether the candidates are the nearest rows, but for the rounding of float32."""
        return self.type is IndexType.FLAT

    @property
    def most_candidates(self) -> int:
        """How many candidates can be asked for."""
        return min(len(self), gpu.MOST_RESULTS) if gpu.holds(self.index) else len(self)

    def candidates(self, queries: Vectors, count: int) -> list[Sequences]:
        """For each query the sequence numbers of about `count` rows near to it, ascending.

        Some may have been deleted; there may be fewer, down to none.
        """
        found = main_part_types.search(self.type, self.index, queries, min(count, len(self)))
        return [self.sequences[np.sort(rows[rows >= 0])] for rows in found]
