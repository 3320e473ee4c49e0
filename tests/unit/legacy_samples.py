"""Files as the service that this one replaces wrote them, by real Faiss and pickle."""

import hashlib
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from storage_samples import (
    MODEL,
    random_units,
    stored,
    vectors_of,
)

from deployments.core.errors import (
    InvalidInput,
)
from deployments.core.folders.legacy_import import import_legacy
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import Segment, Vectors


def flat_l2(vectors: Vectors) -> Any:
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    return index


def flat_ip(vectors: Vectors) -> Any:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def ivf(vectors: Vectors) -> Any:
    quantizer = faiss.IndexFlatL2(vectors.shape[1])
    index = faiss.IndexIVFFlat(quantizer, vectors.shape[1], 3)
    index.train(random_units(200, vectors.shape[1]))
    index.add(vectors)
    return index


def hnsw(vectors: Vectors) -> Any:
    index = faiss.IndexHNSWFlat(vectors.shape[1], 8)
    index.add(vectors)
    return index


def mapped(make: Callable[[Vectors], Any], ids: Sequence[int], kind: Any) -> Any:
    def wrap(vectors: Vectors) -> Any:
        index = kind(make(vectors[:0]))
        index.add_with_ids(vectors, np.array(ids, np.int64))
        return index

    return wrap


FORMS: dict[str, Callable[[Vectors], Any]] = {
    "IndexFlatL2": flat_l2,
    "IndexFlatIP": flat_ip,
    "IndexIVFFlat": ivf,
    "IndexHNSWFlat": hnsw,
}


def write_legacy(
    folder: Path,
    vectors: Vectors,
    metadata: Any,
    kind: str = "transcript",
    form: Callable[[Vectors], Any] = flat_l2,
) -> None:
    folder.mkdir(exist_ok=True)
    faiss.write_index(form(vectors), str(folder / f"{kind}_index.faiss"))
    (folder / f"{kind}_metadata.pkl").write_bytes(pickle.dumps(metadata))


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "media_item_id": 1 + number // 3,
        "segment_id": number,
        "start_time": number * 2.5,
        "end_time": number * 2.5 + 2,
        "text": f"text {number}",
        **changes,
    }


def texts(count: int) -> Vectors:
    """Vectors of the rows' texts."""
    return vectors_of(f"text {number}" for number in range(count))


def imported_transcripts(folder: Path) -> dict[Any, Segment]:
    with SegmentIndex.open(folder, MODEL) as index:
        assert index.verify() == []
        assert index.stats().rebuilt == {}
        return dict(stored(index))


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != ".lock"
    }


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(InvalidInput) as raised:
        import_legacy(*arguments, **options)
    return raised.value.detail
