"""The plain ranking that the service's answers are compared with."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BATCH = 256
SAME_DECIMALS = 10
"""Scores equal to so many decimals are taken for equal: BLAS may add up equal rows differently."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best documents of each query: positions and cosines, both (queries, top_k)."""

    positions: npt.NDArray[np.int64]
    cosines: npt.NDArray[np.float64]


def rank(
    queries: npt.NDArray[np.float32], documents: npt.NDArray[np.float32], top_k: int
) -> Ranking:
    """Compare every query with every document in float64; equal scores in the documents' order."""
    exact = documents.astype(np.float64).T
    positions, cosines = [], []
    for start in range(0, len(queries), BATCH):
        scores = np.round(queries[start : start + BATCH].astype(np.float64) @ exact, SAME_DECIMALS)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        positions.append(best)
        cosines.append(np.take_along_axis(scores, best, axis=1))
    return Ranking(np.concatenate(positions), np.concatenate(cosines))
