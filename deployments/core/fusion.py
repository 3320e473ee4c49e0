"""One score from two that can't be compared: a cosine and a BM25 score."""

import numpy as np
import numpy.typing as npt

DEPTH = 100
"""So many of the best of each part are candidates, or more where more results are wanted."""

SEMANTIC_WEIGHT = 0.6

Scores = npt.NDArray[np.float64]


def fuse(cosines: Scores, bm25: Scores) -> tuple[Scores, Scores]:
    """What cosine and BM25 score add to the score of each candidate.

    Both arrays are of all candidates, those of one part too. The sum of the two is a weighted sum
    of standard scores (z-scores, as in Montague and Aslam, "Relevance score normalization for
    metasearch", 2001):

        SEMANTIC_WEIGHT · z(cosine) + (1 - SEMANTIC_WEIGHT) · z(bm25)
        z(x) = (x - mean of the candidates) / standard deviation of the candidates
    """
    return SEMANTIC_WEIGHT * _standard(cosines), (1 - SEMANTIC_WEIGHT) * _standard(bm25)


def _standard(values: Scores) -> Scores:
    if not len(values) or values.min() == values.max():
        return np.zeros(len(values))
    return (values - values.mean()) / values.std()
