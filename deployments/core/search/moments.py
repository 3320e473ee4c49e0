"""Moments: the stretches of media items that hits of any type point to.

A hit's score is its strength and what else was found of the same media item, less the further away
that is:

    score = strength + SUPPORT · √(Σ exp(-gap / NEARBY_S) · strength²), over the media item's others

The best hit that is left is where the next moment is. Hits that nearly touch it, or each other, and
match almost as well belong to the same moment. Whatever nearly touches the moment then is its
evidence too, but doesn't make it longer, and is in no other moment. If MOST of a long hit is
further away, that part is left for another one. So no two moments of a media item nearly touch.
Hits without any time are one moment of their media item, which has no times.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from deployments.core.search.moment_strengths import Evidence
from deployments.core.segments import Hit, Id
from deployments.core.storage.segment_rows import key_of

SUPPORT = 0.1
NEARBY_S = 30.0
FAR_S = 40 * NEARBY_S
NEARLY_TOUCHING_S = 3.0
ALMOST_AS_WELL = 0.9
MOST = 0.5
LONG_S = 15.0
_A_MILLISECOND = 0.001

Seconds = float | int
Span = tuple[Seconds, Seconds]
Values = npt.NDArray[np.float64]


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
    def key(self) -> tuple[float, float, float, str, Span, str, int]:
        """What candidates are sorted by, best first: whatever order the hits had."""
        hit = self.evidence.hit
        span = (0, 0) if self.span is None else self.span
        return (
            -self.score,
            -self.evidence.strength,
            -self.evidence.match,
            key_of(hit.media_item_id),
            span,
            self.evidence.embedding_type,
            hit.sequence,
        )


def find_moments(evidence: Iterable[Evidence], top_k: int) -> list[Moment]:
    """The best `top_k` moments, best first, that hits with their explanations point to."""
    media: dict[str, list[Evidence]] = {}
    for each in evidence:
        media.setdefault(key_of(each.hit.media_item_id), []).append(each)
    moments = [
        moment
        for several in media.values()
        # One more than may be shown: the one without times comes first, and may not be among them.
        for moment in islice(_moments_of(_scored(several)), top_k + 1)
    ]
    # Stable, and by the best hit: equal scores are ordered as hits are.
    moments.sort(key=lambda one: one[0].key)
    return [moment for _, moment in moments[:top_k]]


def span_of(hit: Hit) -> Span | None:
    """From when to when a hit is; one with a single time lasts no time."""
    start, end = hit.segment.start_time, hit.segment.end_time
    if start is None:
        return None if end is None else (end, end)
    return (start, start if end is None else max(start, end))


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
    """Of each span, ascending: the others' squares, less the further away they are."""
    # What is further away than FAR_S would add nothing that the sums can hold.
    first = np.searchsorted(np.maximum.accumulate(spans[:, 1]), spans[:, 0] - FAR_S)
    last = np.searchsorted(spans[:, 0], spans[:, 1] + FAR_S, side="right")
    found = []
    for position, (start, end) in enumerate(spans):
        there = slice(first[position], last[position])
        starts, ends = spans[there].T
        gaps = np.maximum(0.0, np.maximum(start, starts) - np.minimum(end, ends))
        near = np.exp(-gaps / NEARBY_S) * squares[there]
        near[position - there.start] = 0.0
        found.append(float(near.sum()))
    return found


def _moments_of(candidates: Sequence[_Candidate]) -> Iterator[tuple[_Candidate, Moment]]:
    """The moments of one media item's hits, which come best first, each with its best hit.

    They are made as they are asked for: the one without times, then the others best first.
    """
    untimed = [each for each in candidates if each.span is None]
    if untimed:
        yield untimed[0], _moment(untimed, None)
    left = [each for each in candidates if each.span is not None]
    while left:
        start, end = _grown(left)
        reach = (start - NEARLY_TOUCHING_S, end + NEARLY_TOUCHING_S)
        beyond = [_beyond(each, reach) for each in left]
        there = [each for each, rest in zip(left, beyond, strict=True) if rest is None]
        yield there[0], _moment(there, (start, end))
        left = [rest for rest in beyond if rest is not None]


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


def _grown(left: Sequence[_Candidate]) -> Span:
    """The stretch of the first of these hits and of those that belong to it."""
    best = left[0]
    start, end = _times(best)
    if start == end:
        # What lasts no time is shown, or said, during the best of what is there at that time.
        around = (_times(each) for each in left)
        holding = (each for each in around if each[0] <= start <= each[1] and each[0] < each[1])
        start, end = next(holding, (start, end))
    least = ALMOST_AS_WELL * best.evidence.match
    alike = [_times(each) for each in left if each.evidence.match >= least > 0]
    chains = _chains(sorted([*alike, (start, end)]))
    return next(each for each in chains if each[0] <= start and end <= each[1])


def _beyond(candidate: _Candidate, reach: Span) -> _Candidate | None:
    """A hit, cut if it has to be, without what a moment reaches; None if too little is left."""
    start, end = _times(candidate)
    if not _touch((start, end), reach):
        return candidate
    before, after = reach[0] - _A_MILLISECOND, reach[1] + _A_MILLISECOND
    whole = span_of(candidate.evidence.hit) or (start, end)
    least = max(MOST * (whole[1] - whole[0]), LONG_S)
    if end - after >= least:
        return replace(candidate, span=(max(start, after), end))
    if before - start >= least:
        return replace(candidate, span=(start, min(end, before)))
    return None


def _touch(one: Span, other: Span) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


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
