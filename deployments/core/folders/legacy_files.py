"""The files of the service that this one replaces: a Faiss index beside a pickle of metadata."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from deployments.core.durable_files import Disk
from deployments.core.errors import InvalidInput
from deployments.core.folders.folder_install import pickle_of
from deployments.core.folders.restricted_pickle import read_plain_pickle
from deployments.core.segments import EmbeddingType, Vectors
from deployments.core.storage_errors import translated
from deployments.core.vectors import checkpoint

_METRICS = (faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT)

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LegacyVectors:
    """An index of the old service. `rows` are the numbers by which the metadata names its
    vectors, int64, ascending, without repetition."""

    form: str
    dimension: int
    rows: Rows
    _keys: Rows
    _index: Any
    _owner: Any
    """What frees `_index` at its end: Faiss' wrapper of the whole file."""

    def take(self, positions: Rows) -> Vectors:
        """The vectors of `rows[positions]`, as they were added, (positions, dimension)."""
        if not len(positions):
            return np.empty((0, self.dimension), np.float32)
        vectors: Vectors = self._index.reconstruct_batch(self._keys[positions])
        return vectors


def legacy_files(folder: Path) -> dict[EmbeddingType, list[Path]]:
    """The old service's files in a folder, by type; without types that have none.

    An index that has this service's trailer isn't one of them. Raises StoreError.
    """
    found = {}
    with translated(f"Cannot read {folder}"):
        for kind in EmbeddingType:
            index, metadata = checkpoint.path_of(folder, kind), pickle_of(folder, kind)
            files = [metadata] if metadata.exists() else []
            if index.exists() and not checkpoint.has_trailer(index, Disk()):
                files.insert(0, index)
            if files:
                found[kind] = files
    return found


def read_metadata(path: Path) -> tuple[dict[int, Any], bool]:
    """What the pickle has for each row, and whether it is a list, which has to cover all rows.

    Raises InvalidInput for a pickle that isn't plain values or has another form.
    """
    with translated(f"Cannot read {path}"):
        data = path.read_bytes()
    try:
        value = read_plain_pickle(data)
        if isinstance(value, list | tuple):
            return dict(enumerate(value)), True
        if not isinstance(value, dict):
            raise InvalidInput(f"it holds a {type(value).__name__}, expected a list or a dict")
        return {_row_number(key): metadata for key, metadata in value.items()}, False
    except InvalidInput as error:
        raise InvalidInput(f"{path} can't be read: {error.detail}.") from error


def _row_number(key: object) -> int:
    if isinstance(key, str) and key.isascii() and key.isdecimal():
        return int(key)
    if isinstance(key, bool) or not isinstance(key, int):
        raise InvalidInput(f"it has the key {str(key)[:50]!r}, expected the number of a row")
    return key


def read_vectors(path: Path) -> LegacyVectors:
    """The index, whose vectors must be stored as they are: flat, IVF with flat lists, or HNSW.

    Raises InvalidInput for another kind of index, and for what Faiss can't read.
    """
    with translated(f"Cannot read {path}"):
        path.open("rb").close()
    try:
        owner = index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise InvalidInput(f"{path} can't be read by Faiss: {error}") from error
    form = type(index).__name__
    rows = None
    if isinstance(index, faiss.IndexIDMap):
        rows = faiss.vector_to_array(index.id_map).astype(np.int64)
        index = faiss.downcast_index(index.index)
        form = f"{form} of {type(index).__name__}"
    if isinstance(index, faiss.IndexIVFFlat):
        keys = _ivf_keys(index)
        index.set_direct_map_type(faiss.DirectMap.Hashtable)  # type: ignore[attr-defined]
    elif isinstance(index, faiss.IndexFlat | faiss.IndexHNSWFlat):
        keys = np.arange(index.ntotal)
    else:
        raise InvalidInput(
            f"{path} is an {form}, which doesn't keep its vectors as they were. Flat, IVFFlat and "
            "HNSWFlat indices can be imported; the media items have to be sent again."
        )
    if index.metric_type not in _METRICS:
        raise InvalidInput(f"{path} compares by Faiss' metric {index.metric_type}, not L2 or IP.")
    rows = keys if rows is None else rows
    if len(rows) != len(keys) or len(np.unique(rows)) != len(rows):
        raise InvalidInput(f"{path} has several vectors with the same number.")
    order = np.argsort(rows)
    return LegacyVectors(form, index.d, rows[order], keys[order], index, owner)


def _ivf_keys(index: Any) -> Rows:
    lists = index.invlists
    parts: list[Rows] = [np.empty(0, np.int64)]
    for number in range(index.nlist):
        if size := lists.list_size(number):
            parts.append(faiss.rev_swig_ptr(lists.get_ids(number), size).astype(np.int64))
    return np.sort(np.concatenate(parts))
