"""BM25 over the places of terms, in plain arithmetic.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, with the
inverse document frequency of Lucene, which is never negative:

    score(row) = Σ w · ln(1 + (N - n + 0.5) / (n + 0.5)) · f · (K1 + 1) / (f + norm)
    norm = K1 · (1 - B + B · length / mean length)

over the terms of the query, with w = 1, and over each two neighbours in it that are neighbours in
the row too, with w = PAIR_WEIGHT (the ordered pairs of Metzler and Croft, "A Markov Random Field
Model for Term Dependencies", 2005). f is how often a row has the term or pair, n how many of all N
rows have it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from deployments.core.vectors.ascending import look_up

K1 = 1.2
B = 0.75
PAIR_WEIGHT = 0.4

Scores = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_POSITION_BITS = 32


@dataclass(frozen=True, slots=True)
class Postings:
    """Where one term is: `keys` are row · 2³² + position, int64, ascending.

    `rows` are the rows, each once, and `counts` how often each has the term.
    """

    keys: Rows
    rows: Rows
    counts: Scores

    @classmethod
    def of(cls, keys: Rows) -> "Postings":
        """From keys, ascending."""
        rows = keys >> _POSITION_BITS
        firsts = np.flatnonzero(np.diff(rows, prepend=-1))
        counts = np.diff(firsts, append=len(rows))
        return cls(keys, rows[firsts], counts.astype(np.float64))


def keys_of(rows: Rows, positions: Rows) -> Rows:
    """The keys of these rows and positions, ascending."""
    return np.sort((rows << _POSITION_BITS) | positions)


def pair(first: Postings, second: Postings) -> Postings:
    """Where the second term comes right after the first: the places of the first."""
    if len(first.keys) <= len(second.keys):
        _, followed = look_up(first.keys + 1, second.keys)
        return Postings.of(first.keys[followed])
    before = second.keys - 1
    _, there = look_up(before, first.keys)
    return Postings.of(before[there])


@dataclass(frozen=True, slots=True)
class Rowset:
    """The rows that are compared: `live` says which of all rows count, `norm` is theirs."""

    live: npt.NDArray[np.bool_]
    norm: Scores
    count: int

    @classmethod
    def of(cls, live: npt.NDArray[np.bool_], lengths: Scores) -> "Rowset":
        """From which rows count, and how many terms each of all has."""
        count = int(live.sum())
        mean = float(lengths[live].mean()) if count else 0.0
        relative = lengths / mean if mean else np.zeros(len(lengths))
        return cls(live, K1 * (1 - B + B * relative), count)


def scores(rowset: Rowset, terms: Sequence[str], postings: dict[str, Postings]) -> Scores:
    """The score of each row for a query's terms, in their order, float64; 0 has none of them.

    `postings` has those of every term.
    """
    total = np.zeros(len(rowset.live))
    # Each once, in a fixed order, so that equal queries have equal scores.
    for term in dict.fromkeys(terms):
        _add(total, rowset, postings[term], 1.0)
    for first, second in dict.fromkeys(pairwise(terms)):
        _add(total, rowset, pair(postings[first], postings[second]), PAIR_WEIGHT)
    return total


def _add(total: Scores, rowset: Rowset, postings: Postings, weight: float) -> None:
    rows, counts = postings.rows, postings.counts
    if rowset.count < len(rowset.live):
        live = rowset.live[rows]
        rows, counts = rows[live], counts[live]
    if len(rows):
        idf = np.log1p((rowset.count - len(rows) + 0.5) / (len(rows) + 0.5))
        total[rows] += weight * idf * counts * (K1 + 1) / (counts + rowset.norm[rows])
