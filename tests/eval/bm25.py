"""The plain BM25 that keyword search is compared with."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

K1 = 1.2
B = 0.75


def words(text: str) -> list[str]:
    """Runs of letters and digits in lower case: no stemming, no stop words."""
    return re.findall(r"[a-z0-9]+", text.lower())


def rank_by_words(
    queries: Sequence[str], documents: Sequence[str], top_k: int
) -> list[npt.NDArray[np.int64]]:
    """Positions of the best documents of each query, equal scores in the documents' order.

    Documents without any of a query's words are left out. Robertson and Zaragoza, "The
    Probabilistic Relevance Framework: BM25 and Beyond", 2009.
    """
    counts = [Counter(words(text)) for text in documents]
    lengths = np.array([each.total() for each in counts], np.float64)
    norm = K1 * (1 - B + B * lengths / max(lengths.mean(), 1))
    weights: dict[str, tuple[list[int], list[int]]] = {}
    for position, each in enumerate(counts):
        for word, count in each.items():
            positions, frequencies = weights.setdefault(word, ([], []))
            positions.append(position)
            frequencies.append(count)
    found = []
    for query in queries:
        scores = np.zeros(len(documents))
        for word in dict.fromkeys(words(query)):
            if word in weights:
                positions = np.array(weights[word][0])
                frequencies = np.array(weights[word][1], np.float64)
                idf = np.log1p((len(documents) - len(positions) + 0.5) / (len(positions) + 0.5))
                scores[positions] += idf * frequencies * (K1 + 1) / (frequencies + norm[positions])
        best = np.argsort(-scores, kind="stable")[:top_k]
        found.append(best[scores[best] > 0])
    return found
