"""The exact best rows of a matrix for some queries, with scores that don't depend on the batch.

Candidates come from float32 products, whose order of summation differs between one query and
many. Each product is within a known bound of the true one, so all rows that could belong to the
best k are kept, and these are scored again in float64, each row by itself.
"""

from collections.abc import Iterator

import faiss
import numpy as np
import numpy.typing as npt

from deployments.core.segments import Vectors

UNIT_TOLERANCE = 1e-6
"""How far the length of a stored vector may be from 1."""

_BLOCK_ROWS = 4096  # rows of one matrix product: their scores stay in the processor's cache
_RESCORE_ROWS = 8192
_MAXIMA_OF = 64
_SCORES_BYTES = 64 * 1024 * 1024
_DEAD = np.float32(-4.0)  # below every product of two unit vectors

Scores = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def error_bound(dimension: int) -> float:
    """How far a float32 product of two stored vectors may be from the cosine of the two.

    A sum of n float32 products, in any order, is within n·2⁻²⁴·|x||y| of the true one (Higham,
    Accuracy and Stability of Numerical Algorithms, 3.1); the lengths may differ from 1 as well.
    """
    return (dimension + 1) * 2.0**-24 * 1.001 + 3 * UNIT_TOLERANCE


def best_rows(
    vectors: Vectors, dead: Rows, queries: Vectors, count: int
) -> list[tuple[Scores, Rows]]:
    """For each query the `count` rows of `vectors` with the highest cosine, best first.

    `vectors` (n, d) and `queries` (q, d) are float32, C-contiguous, of unit length; rows in
    `dead` don't count. Equal cosines are ordered by row. Returns cosines, float64, -1…1, and rows,
    int64; fewer than `count` where there are fewer rows.
    """
    count = min(count, len(vectors) - len(dead))
    if count <= 0:
        return [(np.empty(0), np.empty(0, np.int64)) for _ in queries]
    return [
        best_of(vectors, None, scores, query, count)
        for query, scores in zip(queries, scored(vectors, dead, queries), strict=True)
    ]


def scored(vectors: Vectors, dead: Rows, queries: Vectors) -> Iterator[npt.NDArray[np.float32]]:
    """For each query its float32 products with all rows, below every cosine for those in `dead`.

    As many queries at once as fit into a bounded amount of memory.
    """
    at_once = max(1, _SCORES_BYTES // (4 * max(1, len(vectors))))
    for start in range(0, len(queries), at_once):
        for scores in _products(vectors, queries[start : start + at_once]):
            scores[dead] = _DEAD
            yield scores


def products_of(vectors: Vectors, rows: Rows, query: Vectors) -> npt.NDArray[np.float32]:
    """The float32 products of some rows and one query."""
    scores = np.empty(len(rows), np.float32)
    faiss.fvec_inner_products_by_idx(  # type: ignore[attr-defined]
        faiss.swig_ptr(scores),
        faiss.swig_ptr(query),
        faiss.swig_ptr(vectors),
        faiss.swig_ptr(rows),
        vectors.shape[1],
        1,
        len(rows),
    )
    return scores


def best_of(
    vectors: Vectors,
    rows: Rows | None,
    scores: npt.NDArray[np.float32],
    query: Vectors,
    count: int,
) -> tuple[Scores, Rows]:
    """The `count` best of the rows, ascending, that have these float32 products with a query.

    `rows` None stands for all rows. At least `count` of the scores must be of rows that aren't
    dead. Returns as best_rows.
    """
    places = _candidates(scores, count, 2 * error_bound(vectors.shape[1]))
    return _ranked(vectors, places if rows is None else rows[places], query, count)


def _products(vectors: Vectors, queries: Vectors) -> npt.NDArray[np.float32]:
    rows, dimension = vectors.shape
    scores = np.empty((len(queries), rows), np.float32)
    if len(queries) == 1:
        # Measured with 100,000 rows: 8 ms, and 11 ms by matmul.
        faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]
            faiss.swig_ptr(scores),
            faiss.swig_ptr(queries),
            faiss.swig_ptr(vectors),
            dimension,
            rows,
        )
        return scores
    # Measured with 100,000 rows and 32 queries: 45 ms, and 266 ms by faiss.knn_inner_product.
    for start in range(0, rows, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        np.matmul(queries, vectors[block].T, out=scores[:, block])
    return scores


def _candidates(scores: npt.NDArray[np.float32], count: int, slack: float) -> Rows:
    """All rows whose score is at least the `count`-th best one less `slack`, ascending."""
    groups = len(scores) // _MAXIMA_OF
    floor = _DEAD
    if groups > 2 * count:
        # The count-th best of the groups' maxima can't be above the count-th best score.
        maxima = scores[: groups * _MAXIMA_OF].reshape(groups, _MAXIMA_OF).max(axis=1)
        floor = np.partition(maxima, groups - count)[groups - count]
    candidates = np.flatnonzero(scores >= floor - slack)
    kept = scores[candidates]
    kth = np.partition(kept, len(kept) - count)[len(kept) - count]
    best: Rows = candidates[(kept >= kth - slack) & (kept > _DEAD)]
    return best


def _ranked(vectors: Vectors, rows: Rows, query: Vectors, count: int) -> tuple[Scores, Rows]:
    cosines = np.concatenate(
        [
            cosines_of(vectors[rows[start : start + _RESCORE_ROWS]], query)
            for start in range(0, len(rows), _RESCORE_ROWS)
        ]
    )
    # The sort is stable and rows ascend, so equal cosines stay in the order of their rows.
    order = np.argsort(-cosines, kind="stable")[:count]
    return cosines[order], rows[order]


def cosines_of(vectors: Vectors, query: Vectors) -> Scores:
    """Cosines of rows (n, d) to a query (d,), float64, exactly 1 for a row equal to the query.

    Each row is summed by itself, so its result is the same whatever rows are beside it.
    """
    exact = vectors.astype(np.float64)
    wanted = query.astype(np.float64)
    products = (exact * wanted).sum(axis=1)
    squares = (exact * exact).sum(axis=1) * (wanted * wanted).sum()
    cosines: Scores = np.clip(products / np.sqrt(squares), -1.0, 1.0)
    return cosines
