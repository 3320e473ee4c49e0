"""Which rows of a ranking are near-duplicates of better ones."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deployments.core.segments import Vectors
from deployments.core.vectors.collection import Snapshot
from deployments.core.vectors.exact_search import cosines_of, error_bound

_FIRST_ROOM = 64


class NearDuplicates:
    """Compares rows with those that were taken before; one is near at a cosine of `least` or more.

    Rows are looked at in blocks: one product of two matrices takes a small part of the time of as
    many products of a matrix and a vector.
    """

    def __init__(self, least: float, snapshot: Snapshot) -> None:
        self._least = least
        self._snapshot = snapshot
        self._rough_least = least - error_bound(snapshot.vectors.shape[1])
        self._taken: Vectors = np.empty((_FIRST_ROOM, snapshot.vectors.shape[1]), np.float32)
        self._count = 0
        self._sequences: Sequence[int] = ()
        self._block: Vectors | None = None

    def look_at(self, sequences: Sequence[int]) -> None:
        """Begin a block: `is_near` and `take` speak of positions in it from now on."""
        self._sequences = sequences
        self._block = None

    def is_near(self, position: int) -> bool:
        """Whether a row of the block is near to one that was taken."""
        block = self._compared()
        near_before = self._taken[: self._count_before][self._before[position]]
        among = [other for other in self._taken_here if self._within[position, other]]
        candidates = np.concatenate([near_before, block[among]])
        return bool(
            len(candidates) and cosines_of(candidates, block[position]).max() >= self._least
        )

    def take(self, position: int) -> None:
        """Count a row of the block as one of those that others may be near to."""
        block = self._compared()
        if self._count == len(self._taken):
            self._taken = np.concatenate([self._taken, np.empty_like(self._taken)])
        self._taken[self._count] = block[position]
        self._count += 1
        self._taken_here.append(position)

    def _compared(self) -> Vectors:
        """The vectors of the block, compared with those taken before and with one another."""
        if self._block is None:
            block = self._snapshot.vectors_of(np.array(self._sequences, np.int64))
            self._before: npt.NDArray[np.bool_] = (
                block @ self._taken[: self._count].T >= self._rough_least
            )
            self._within: npt.NDArray[np.bool_] = block @ block.T >= self._rough_least
            self._count_before = self._count
            self._taken_here: list[int] = []
            self._block = block
        return self._block
