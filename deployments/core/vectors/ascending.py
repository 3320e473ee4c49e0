"""Looking values up in an ascending array."""

from typing import Any

import numpy as np
import numpy.typing as npt


def look_up(
    values: npt.NDArray[np.int64], ascending: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """For each value where it is in `ascending`, or would be, and whether it is there.

    `values` is (n,) int64, in any order; both results are (n,), int64 and bool.
    """
    positions = np.searchsorted(ascending, values)
    found = positions < len(ascending)
    found[found] = ascending[positions[found]] == values[found]
    return positions, found
