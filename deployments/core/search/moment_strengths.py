"""How much each hit counts in a search for moments.

Values of one kind, nearness or BM25 scores, become strengths from 0, nothing at all, to 1, the best
of all types. Most hits are somewhat near to most queries, so what is above a type's hundredth hit
is spread out:

    0 … zero,    A_HUNDREDTH … the type's hundredth,    1 … the best of all types

and linear in between. The hundredth counts as at most MOST_OF_BEST of its type's best, so that a
hundred hits that are all alike are strong. A type with fewer hits has the highest hundredth of the
others, or none.

In hybrid search SEMANTIC_SHARE of the one and the rest of the other make a hit's strength. Its
match is made alike of values that aren't spread out: it tells whether two hits match almost alike.
Both count by the weight of the type.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deployments.core.segments import EmbeddingType, Hit, SearchMode

SCALE_DEPTH = 100
A_HUNDREDTH = 0.02
MOST_OF_BEST = 0.8
SEMANTIC_SHARE = {SearchMode.SEMANTIC: 1.0, SearchMode.KEYWORD: 0.0, SearchMode.HYBRID: 0.75}

Numbers = Mapping[EmbeddingType, Sequence[float]]
Scaled = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A hit, its strength and its match, both from 0 to the weight of its type."""

    embedding_type: EmbeddingType
    hit: Hit
    strength: float
    match: float


def evidence_of(
    found: Mapping[EmbeddingType, Sequence[Hit]],
    nearness: Numbers,
    weights: Mapping[EmbeddingType, float],
    mode: SearchMode,
) -> list[Evidence]:
    """The hits of each type, of which `nearness` says how near each is to the query."""
    share = SEMANTIC_SHARE[mode]
    words = {kind: [_bm25(hit) for hit in hits] for kind, hits in found.items()}
    meant, said = _Scale.of(nearness), _Scale.of(words)
    evidence = []
    for kind, hits in found.items():
        strengths, matches = (
            share * near + (1 - share) * worded
            for near, worded in (
                (meant.strengths(kind, nearness[kind]), said.strengths(kind, words[kind])),
                (meant.matches(nearness[kind]), said.matches(words[kind])),
            )
        )
        evidence += [
            Evidence(kind, hit, weights[kind] * float(strength), weights[kind] * float(match))
            for hit, strength, match in zip(hits, strengths, matches, strict=True)
        ]
    return evidence


@dataclass(frozen=True, slots=True)
class _Scale:
    """What values count: `hundredths` are those of the types that have any."""

    zero: float
    best: float
    hundredths: Mapping[EmbeddingType, float]

    @classmethod
    def of(cls, values: Numbers) -> "_Scale":
        """The scale of all values."""
        every = [value for each in values.values() for value in each]
        zero, best = min([0.0, *every]), max([0.0, *every])
        deep = {kind: each for kind, each in values.items() if len(each) >= SCALE_DEPTH}
        own = {kind: sorted(each)[-SCALE_DEPTH] for kind, each in deep.items()}
        highest = max(own.values(), default=zero)
        hundredths = {
            kind: min(own.get(kind, highest), zero + MOST_OF_BEST * (max(each) - zero))
            for kind, each in values.items()
            if each
        }
        return cls(zero, best, hundredths)

    def matches(self, values: Sequence[float]) -> Scaled:
        """Values from 0 to 1."""
        width = self.best - self.zero
        return (np.asarray(values, np.float64) - self.zero) / (width if width > 0 else 1.0)

    def strengths(self, kind: EmbeddingType, values: Sequence[float]) -> Scaled:
        """Values of a type from 0 to 1, spread out above its hundredth."""
        hundredth = self.hundredths.get(kind, self.zero)
        if hundredth <= self.zero:
            return self.matches(values)
        strengths: Scaled = np.interp(
            values, (self.zero, hundredth, self.best), (0.0, A_HUNDREDTH, 1.0)
        )
        return strengths


def _bm25(hit: Hit) -> float:
    part = None if hit.explanation is None else hit.explanation.keyword
    return 0.0 if part is None else part.value
