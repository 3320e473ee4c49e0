"""Keeps the vectors that were asked for last."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Key = TypeVar("Key", bound=Hashable)


class VectorCache(Generic[Key]):
    """At most `capacity` vectors, (dimension,) float32; the one not used for longest goes first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._vectors: OrderedDict[Key, npt.NDArray[np.float32]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, key: Key) -> npt.NDArray[np.float32] | None:
        """The vector, if it is kept."""
        vector = self._vectors.get(key)
        if vector is not None:
            self._vectors.move_to_end(key)
        return vector

    def keep(self, key: Key, vector: npt.NDArray[np.float32]) -> None:
        """Keep a copy: a row would keep the whole batch's array in memory."""
        self._vectors[key] = vector.copy()
        self._vectors.move_to_end(key)
        if len(self._vectors) > self._capacity:
            self._vectors.popitem(last=False)
