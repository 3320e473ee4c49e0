"""The Faiss indices that can be a main part: how each is made, filled and asked.

The numbers were chosen by `python -m tests.bench.index_types`, with 384 dimensions on 2 cores.
"""

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from deployments.core.segments import IndexType, Vectors
from deployments.core.vectors import gpu

HNSW_NEIGHBOURS = 32
HNSW_LEAST_EF = 128
IVF_PROBED_SHARE = 1 / 16
_IVF_ROUNDS = 8
_IVF_ROWS_PER_LIST = 40
_TRAINING_ROWS = 16_384
_PQ_BITS = 4  # what fast scan can do
_PQ_DIMENSIONS = (3, 2, 1)  # that share them, the first that divides the vector
CANDIDATES = {
    IndexType.FLAT: 50,
    IndexType.HNSW: 100,
    IndexType.IVF: 50,
    IndexType.RABITQ: 1000,
    IndexType.PQ: 1000,
}
"""How many rows are scored anew, at least. The coarser the codes, the more it takes."""
_CANDIDATES_PER_RESULT = 3
_ROWS_PER_CANDIDATE = 1000
_FAST_SCAN_BLOCK = 32

Rows = npt.NDArray[np.int64]
Progress = Callable[[float], None]
"""Takes a share, 0…1; raises to give up."""


def ivf_lists(rows: int) -> int:
    """How many clusters an IVF index of so many rows gets."""
    return max(1, int(4 * rows**0.5))


def training_rows(kind: IndexType, rows: int) -> int:
    """How many of `rows` rows are enough to train an index."""
    if kind is IndexType.IVF:
        return min(rows, _IVF_ROWS_PER_LIST * ivf_lists(rows))
    return min(rows, _TRAINING_ROWS)


def trained(kind: IndexType, sample: Vectors, rows: int, progress: Progress) -> Any:
    """An empty index for `rows` rows of the sample's kind, (n, dimension) float32 of unit length.

    Scalar and product quantisers keep HNSW, IVF and PQ from holding the vectors a second time.
    """
    dimension = sample.shape[1]
    product = faiss.METRIC_INNER_PRODUCT
    index: Any
    match kind:
        case IndexType.FLAT:
            return faiss.IndexFlatIP(dimension)
        case IndexType.HNSW:
            index = faiss.IndexHNSWSQ(
                dimension,
                faiss.ScalarQuantizer.QT_8bit,  # type: ignore[arg-type]
                HNSW_NEIGHBOURS,
                product,
            )
        case IndexType.IVF:
            centres = _centres(sample, ivf_lists(rows), progress)
            index = faiss.IndexIVFScalarQuantizer(
                centres, dimension, centres.ntotal, faiss.ScalarQuantizer.QT_8bit, product
            )
        case IndexType.RABITQ:
            index = faiss.IndexRaBitQFastScan(dimension, product, _FAST_SCAN_BLOCK, 1)
        case IndexType.PQ:
            # Three dimensions that share four bits are 30 % faster than two, and with more
            # candidates find as much.
            shared = next(each for each in _PQ_DIMENSIONS if dimension % each == 0)
            index = faiss.IndexPQFastScan(dimension, dimension // shared, _PQ_BITS, product)
            index.pq.cp.niter = 10
            index.pq.cp.min_points_per_centroid = 1  # no warnings about small indices
        case IndexType.AUTO:
            raise ValueError("auto is no type of index; ask wanted_type for one")
    if not index.is_trained:
        index.train(sample)
    return index


def _centres(sample: Vectors, lists: int, progress: Progress) -> Any:
    """Centres by k-means, one round at a time, so that it can be given up in between."""
    centres = faiss.IndexFlatIP(sample.shape[1])
    rng = np.random.default_rng(0)
    at = np.ascontiguousarray(sample[rng.choice(len(sample), lists, replace=False)])
    for _ in range(_IVF_ROUNDS):
        progress(0.0)
        parameters = faiss.ClusteringParameters()
        parameters.niter = 1
        parameters.spherical = True
        parameters.min_points_per_centroid = 1
        parameters.max_points_per_centroid = _IVF_ROWS_PER_LIST
        clustering = faiss.Clustering(sample.shape[1], lists, parameters)
        faiss.copy_array_to_vector(at.ravel(), clustering.centroids)
        centres.reset()
        clustering.train(sample, centres)
        at = faiss.vector_to_array(clustering.centroids).reshape(lists, -1)
    centres.reset()
    centres.add(at)
    return centres


def copied(kind: IndexType, index: Any) -> Any:
    """A copy that shares nothing with the index."""
    if kind is IndexType.RABITQ:  # Faiss 1.15 can't clone this one
        return faiss.deserialize_index(faiss.serialize_index(index))
    return faiss.clone_index(index)


def candidates_for(kind: IndexType, rows: int, count: int) -> int:
    """How many of an index' rows to score anew for `count` results."""
    return CANDIDATES[kind] + rows // _ROWS_PER_CANDIDATE + _CANDIDATES_PER_RESULT * count


def search(kind: IndexType, index: Any, queries: Vectors, count: int) -> Rows:
    """Rows (q, count) of the index near to the queries, best first; -1 where it found none."""
    parameters: Any = None
    match kind:
        case IndexType.HNSW:
            ef = max(HNSW_LEAST_EF, count)
            parameters = faiss.SearchParametersHNSW(efSearch=ef)  # type: ignore[attr-defined]
        case IndexType.IVF:
            probes = max(1, round(index.nlist * IVF_PROBED_SHARE))
            parameters = faiss.SearchParametersIVF(nprobe=probes)  # type: ignore[call-arg]
    with gpu.turn(index):
        found: Rows = index.search(queries, count, params=parameters)[1]
    return found
