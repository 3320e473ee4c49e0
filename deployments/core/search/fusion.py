"""One score from two that can't be compared: a cosine and a BM25 score."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DEPTH = 100
"""So many of the best of each part are candidates, or more where more results are wanted."""

SEMANTIC_WEIGHT = 0.6

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much a cosine and a BM25 score count, by their spread among the candidates.

    The sum of both parts is a weighted sum of standard scores (z-scores, as in Montague and
    Aslam, "Relevance score normalization for metasearch", 2001):

        SEMANTIC_WEIGHT · z(cosine) + (1 - SEMANTIC_WEIGHT) · z(bm25)
        z(x) = (x - mean of the candidates) / standard deviation of the candidates
    """

    cosine_mean: float
    semantic_slope: float
    bm25_mean: float
    keyword_slope: float

    @classmethod
    def of(cls, cosines: Scores, bm25: Scores) -> "Scale":
        """From the cosines and BM25 scores of all candidates, those of one part too."""
        return cls(
            *_mean_and_slope(cosines, SEMANTIC_WEIGHT),
            *_mean_and_slope(bm25, 1 - SEMANTIC_WEIGHT),
        )

    def parts(self, cosines: Scores, bm25: Scores) -> tuple[Scores, Scores]:
        """What cosine and BM25 score add to the score of each row."""
        return (
            self.semantic_slope * (cosines - self.cosine_mean),
            self.keyword_slope * (bm25 - self.bm25_mean),
        )


def _mean_and_slope(values: Scores, weight: float) -> tuple[float, float]:
    if not len(values) or values.min() == values.max():
        return 0.0, 0.0
    return float(values.mean()), float(weight / values.std())
