"""Moments: the stretches of media items that hits of any type point to.

A hit's strength is the weight of its type times its nearness, or BM25 score, on a scale from its
type's hundredth, 0, to the best of all types, 1; in hybrid search SEMANTIC_SHARE of the one and the
rest of the other. Its score adds what else was found of the same media item, less the further away
that is:

    score = strength + SUPPORT · √(Σ exp(-gap / NEARBY_S) · strength²), over the media item's others

The best hit that is left is where the next moment is. Hits that touch it, or each other, and are
almost as strong belong to the same moment; what is inside, whatever its strength, is its evidence.
No two moments of a media item overlap: one that would is cut if most of its hit remains, else left
out. Hits without any time are one moment of their media item, which has no times.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deployments.core.segments import EmbeddingType, Hit, Id, SearchMode
from deployments.core.storage.segment_rows import key_of

SCALE_DEPTH = 100
SEMANTIC_SHARE = {SearchMode.SEMANTIC: 1.0, SearchMode.KEYWORD: 0.0, SearchMode.HYBRID: 0.75}
SUPPORT = 0.1
NEARBY_S = 30.0
NEARLY_TOUCHING_S = 3.0
ALMOST_AS_STRONG = 0.9
MOST_OF_A_HIT = 0.7

Seconds = float | int
Span = tuple[Seconds, Seconds]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A hit of a moment."""

    embedding_type: EmbeddingType
    hit: Hit
    strength: float


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of a media item, with its best hit first; times are None for hits without any.

    `score` is that of the best hit, of which `support` is what others add.
    """

    media_item_id: Id
    start_time: Seconds | None
    end_time: Seconds | None
    score: float
    support: float
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class _Candidate:
    evidence: Evidence
    span: Span | None
    score: float

    @property
    def key(self) -> tuple[float, float, str, Span, str, int]:
        """What candidates are sorted by, best first: whatever order the hits had."""
        hit = self.evidence.hit
        span = (0, 0) if self.span is None else self.span
        return (
            -self.score,
            -self.evidence.strength,
            key_of(hit.media_item_id),
            span,
            self.evidence.embedding_type,
            hit.sequence,
        )


def find_moments(
    found: Mapping[EmbeddingType, Sequence[Hit]],
    nearness: Mapping[EmbeddingType, Sequence[float]],
    weights: Mapping[EmbeddingType, float],
    mode: SearchMode,
    top_k: int,
) -> list[Moment]:
    """The best `top_k` moments, best first, from the hits of each type, with their explanations.

    `nearness` says how near each hit is to the query.
    """
    media: dict[str, list[Evidence]] = {}
    for evidence in _evidence(found, nearness, weights, mode):
        media.setdefault(key_of(evidence.hit.media_item_id), []).append(evidence)
    moments = [moment for several in media.values() for moment in _moments_of(_scored(several))]
    # Stable, and by the best hit: equal scores are ordered as hits are.
    moments.sort(key=lambda one: one[0].key)
    return [moment for _, moment in moments[:top_k]]


def span_of(hit: Hit) -> Span | None:
    """From when to when a hit is; one with a single time lasts no time."""
    start, end = hit.segment.start_time, hit.segment.end_time
    if start is None:
        return None if end is None else (end, end)
    return (start, start if end is None else max(start, end))


def _evidence(
    found: Mapping[EmbeddingType, Sequence[Hit]],
    nearness: Mapping[EmbeddingType, Sequence[float]],
    weights: Mapping[EmbeddingType, float],
    mode: SearchMode,
) -> list[Evidence]:
    meanings = _scaled(nearness)
    words = _scaled({kind: [_bm25(hit) for hit in hits] for kind, hits in found.items()})
    share = SEMANTIC_SHARE[mode]
    return [
        Evidence(
            kind, hit, weights[kind] * (share * meanings[kind][i] + (1 - share) * words[kind][i])
        )
        for kind, hits in found.items()
        for i, hit in enumerate(hits)
    ]


def _bm25(hit: Hit) -> float:
    part = None if hit.explanation is None else hit.explanation.keyword
    return 0.0 if part is None else part.value


def _scaled(values: Mapping[EmbeddingType, Sequence[float]]) -> dict[EmbeddingType, list[float]]:
    """Values of each type from 0, its hundredth or nothing at all, to 1, the best of all types."""
    best = max((max(each) for each in values.values() if each), default=0.0)
    scaled = {}
    for kind, each in values.items():
        ranked = sorted(each, reverse=True)
        floor = ranked[SCALE_DEPTH - 1] if len(ranked) >= SCALE_DEPTH else min(0.0, *ranked, 0.0)
        width = best - floor
        scaled[kind] = [max(0.0, (value - floor) / width) if width > 0 else 0.0 for value in each]
    return scaled


def _scored(evidence: Sequence[Evidence]) -> list[_Candidate]:
    """The hits of one media item, best first."""
    # Sums of floats depend on their order.
    timed = sorted(
        (
            (span, each.embedding_type, each.hit.sequence, each)
            for each in evidence
            if (span := span_of(each.hit)) is not None
        ),
        key=lambda one: one[:3],
    )
    spans = np.array([span for span, *_ in timed], np.float64).reshape(-1, 2)
    squares = np.array([each.strength for *_, each in timed]) ** 2
    candidates = [
        _Candidate(each, span, each.strength + SUPPORT * math.sqrt(support))
        for (span, *_, each), support in zip(timed, _nearby(spans, squares), strict=True)
    ]
    candidates += [
        _Candidate(each, None, each.strength) for each in evidence if span_of(each.hit) is None
    ]
    return sorted(candidates, key=lambda one: one.key)


def _nearby(spans: Values, squares: Values) -> list[float]:
    """Of each span: the others' squares, less the further away they are."""
    found = []
    for position, (start, end) in enumerate(spans):
        gaps = np.maximum(0.0, np.maximum(start, spans[:, 0]) - np.minimum(end, spans[:, 1]))
        near = np.exp(-gaps / NEARBY_S) * squares
        near[position] = 0.0
        found.append(float(near.sum()))
    return found


def _moments_of(candidates: Sequence[_Candidate]) -> list[tuple[_Candidate, Moment]]:
    """The moments of one media item's hits, which come best first."""
    moments: list[tuple[_Candidate, Moment]] = []
    untimed = [each for each in candidates if each.span is None]
    if untimed:
        moments.append((untimed[0], _moment(untimed, None)))
    left = [each for each in candidates if each.span is not None]
    taken: list[Span] = []
    while left:
        best = left[0]
        free = _free(best, taken)
        if free is None:
            left = left[1:]
            continue
        span = _grown(best, [each for each in left if _is_in(each, free)], free)
        inside = [each for each in left if _is_in(each, span)]
        left = [each for each in left if not _is_in(each, span)]
        taken.append(span)
        moments.append((best, _moment(inside, span)))
    return moments


def _moment(candidates: Sequence[_Candidate], span: Span | None) -> Moment:
    best = candidates[0]
    start, end = (None, None) if span is None else span
    return Moment(
        best.evidence.hit.media_item_id,
        start,
        end,
        best.score,
        best.score - best.evidence.strength,
        tuple(each.evidence for each in candidates),
    )


def _free(candidate: _Candidate, taken: Sequence[Span]) -> Span | None:
    """The stretch between moments that has most of a hit, if there is one."""
    bounds = [-math.inf, *(time for span in sorted(taken) for time in span), math.inf]
    stretches = zip(bounds[::2], bounds[1::2], strict=True)
    return next((each for each in stretches if _is_in(candidate, each)), None)


def _is_in(candidate: _Candidate, stretch: Span) -> bool:
    """Whether most of a hit is in a stretch of time."""
    start, end = _times(candidate)
    if start == end:
        return stretch[0] <= start <= stretch[1]
    return min(end, stretch[1]) - max(start, stretch[0]) >= MOST_OF_A_HIT * (end - start)


def _grown(best: _Candidate, others: Sequence[_Candidate], free: Span) -> Span:
    """The stretch of a hit and of those that belong to it, without what isn't free."""
    start, end = _times(best)
    if start == end:
        # What lasts no time is shown, or said, during the best of what is there at that time.
        around = (_times(each) for each in others)
        holding = (each for each in around if each[0] <= start <= each[1] and each[0] < each[1])
        start, end = next(holding, (start, end))
    least = ALMOST_AS_STRONG * best.evidence.strength
    strong = [_times(each) for each in others if each.evidence.strength >= least > 0]
    chains = _chains(sorted([*strong, (start, end)]))
    first, last = next(each for each in chains if each[0] <= start and end <= each[1])
    return max(first, free[0]), min(last, free[1])


def _chains(spans: Iterable[Span]) -> Iterator[Span]:
    """Ascending spans, those that nearly touch as one."""
    spans = iter(spans)
    first, last = next(spans)
    for start, end in spans:
        if start > last + NEARLY_TOUCHING_S:
            yield first, last
            first, last = start, end
        last = max(last, end)
    yield first, last


def _times(candidate: _Candidate) -> Span:
    assert candidate.span is not None
    return candidate.span
