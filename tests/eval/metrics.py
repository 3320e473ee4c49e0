"""What rankings are worth. The formulas are those of trec_eval, which BEIR reports too."""

import math
from collections.abc import Sequence


def ndcg(gains: Sequence[float], ideal: Sequence[float], k: int) -> float:
    """Normalised discounted cumulative gain of the first k results, 0…1.

    `gains` are those of the results in order, `ideal` those of all relevant documents. Linear
    gains and a discount of log2(rank + 1), as trec_eval's `ndcg_cut` (Järvelin and Kekäläinen,
    "Cumulated gain-based evaluation of IR techniques", 2002).
    """
    best = _discounted(sorted(ideal, reverse=True)[:k])
    return _discounted(gains[:k]) / best if best else 0.0


def recall(relevant: Sequence[bool], total: int, k: int) -> float:
    """The part of all `total` relevant documents that the first k results have."""
    return sum(relevant[:k]) / total if total else 0.0


def reciprocal_rank(relevant: Sequence[bool]) -> float:
    """1 / rank of the first relevant result, 0 if there is none (trec_eval's `recip_rank`)."""
    return next((1 / rank for rank, one in enumerate(relevant, 1) if one), 0.0)


def interval_iou(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Intersection over union of two stretches of time, 0…1."""
    intersection = min(one[1], other[1]) - max(one[0], other[0])
    if intersection <= 0:
        return 0.0
    return intersection / (max(one[1], other[1]) - min(one[0], other[0]))


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
