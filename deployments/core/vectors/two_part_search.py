"""Search in a main part and in the rows that came after it.

The main part names candidates; rows that it lacks are scanned. Both are scored in the same way, so
a row's score doesn't depend on the part that it is in, and only a row that the main part doesn't
name can be missed.
"""

import numpy as np
import numpy.typing as npt

from deployments.core.segments import Vectors
from deployments.core.vectors.ascending import look_up
from deployments.core.vectors.exact_search import (
    Rows,
    Scores,
    best_of,
    best_rows,
    error_bound,
    products_of,
    scored,
)
from deployments.core.vectors.faiss_threads import one_thread
from deployments.core.vectors.main_part import MainPart, Sequences
from deployments.core.vectors.main_part_types import candidates_for

Products = npt.NDArray[np.float32]

_WIDER = 4
_SCAN_SHARE = 8
"""One candidate in so many rows costs as much as scanning them all."""


@one_thread()
def best_rows_of_two_parts(
    vectors: Vectors,
    sequences: Sequences,
    dead: Rows,
    main: MainPart,
    queries: Vectors,
    count: int,
) -> list[tuple[Scores, Rows]]:
    """As exact_search.best_rows, but a row of the main part may be missed.

    `sequences` (n,) int64, ascending, are those of `vectors`. Always returns `count` rows, or all
    that aren't dead: where the main part doesn't find as many, more are asked for, and in the end
    all rows are scanned.
    """
    split = int(np.searchsorted(sequences, main.last_sequence, "right"))
    border = int(np.searchsorted(dead, split))
    main_rows = split - border
    fresh_rows = len(sequences) - split - (len(dead) - border)
    count = min(count, main_rows + fresh_rows)
    results: list[tuple[Scores, Rows] | None] = [None] * len(queries)
    # Deleted rows take the places of others among the candidates.
    width = candidates_for(main.type, main_rows, count) * len(main) // max(1, main_rows)
    pending = list(range(len(queries))) if count > 0 else []
    while pending and width <= min(main_rows // _SCAN_SHARE, main.most_candidates):
        asked = queries if len(pending) == len(queries) else queries[pending]
        named = main.candidates(asked, width)
        fresh_scores = scored(vectors[split:], dead[border:] - split, asked)
        for i, candidates, scores in zip(pending, named, fresh_scores, strict=True):
            old = _rows_of(candidates, sequences, dead)
            if len(old) + fresh_rows >= count:
                rows = np.concatenate([old, np.arange(split, len(sequences))])
                products = np.concatenate([products_of(vectors, old, queries[i]), scores])
                if main.is_exact and _may_lack(products[: len(old)], products, count, vectors):
                    continue
                results[i] = best_of(vectors, rows, products, queries[i], count)
        pending = [i for i in pending if results[i] is None]
        width *= _WIDER
    if pending:
        scanned = best_rows(vectors, dead, np.ascontiguousarray(queries[pending]), count)
        for i, result in zip(pending, scanned, strict=True):
            results[i] = result
    return [result or (np.empty(0), np.empty(0, np.int64)) for result in results]


def _may_lack(old: Products, products: Products, count: int, vectors: Vectors) -> bool:
    """Whether rows may be as good as the best `count` that an exact main part didn't name."""
    best = np.partition(products, len(products) - count)[len(products) - count]
    return len(old) > 0 and bool(old.min() >= best - 4 * error_bound(vectors.shape[1]))


def _rows_of(candidates: Sequences, sequences: Sequences, dead: Rows) -> Rows:
    """The rows, ascending, of those sequence numbers that are there and not dead."""
    rows, there = look_up(candidates, sequences)
    rows = rows[there]
    _, deleted = look_up(rows, dead)
    return rows[~deleted]
