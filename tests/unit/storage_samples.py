"""Small values for tests of the storage: a model, vectors that a text decides, segments."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import (
    EmbeddingType,
    Hit,
    Id,
    ModelIdentity,
    Search,
    Segment,
    Upsert,
    UpsertResult,
    Vectors,
)

DIMENSION = 16
MODEL = ModelIdentity("sample-model", "5a" * 32, DIMENSION)
MODELS = dict.fromkeys(EmbeddingType, MODEL)
TRANSCRIPT, FRAME, CLIP = EmbeddingType


def vector_of(text: str) -> Vectors:
    """A unit vector, (DIMENSION,), that depends on the text only."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return unit(np.random.default_rng(seed).standard_normal(DIMENSION))


def vectors_of(texts: Iterable[str]) -> Vectors:
    return np.array([vector_of(text) for text in texts], np.float32).reshape(-1, DIMENSION)


def unit(vectors: Any) -> Vectors:
    exact = np.asarray(vectors, np.float64)
    return (exact / np.linalg.norm(exact, axis=-1, keepdims=True)).astype(np.float32)


def random_units(rows: int, dimension: int = DIMENSION, seed: int = 0) -> Vectors:
    return unit(np.random.default_rng(seed).standard_normal((rows, dimension)))


def segment(name: Id, text: str | None = None, **metadata: Any) -> Segment:
    return Segment(name, f"text of {name}" if text is None else text, 1, 2.5, metadata)


def with_vectors(request: Upsert) -> Upsert:
    """The request with a vector for each of its segments."""
    return Upsert(
        request.embedding_type,
        request.media_item_id,
        request.segments,
        request.replace,
        vectors_of(each.text for each in request.segments),
        tuple(range(len(request.segments))),
    )


def upsert_of(
    media_item_id: Id,
    *segments: Segment,
    replace: bool = False,
    kind: EmbeddingType = TRANSCRIPT,
) -> Upsert:
    return with_vectors(Upsert(kind, media_item_id, segments, replace))


def store_segments(
    index: SegmentIndex,
    media_item_id: Id,
    *segments: Segment,
    replace: bool = False,
    kind: EmbeddingType = TRANSCRIPT,
) -> UpsertResult:
    (result,) = index.apply([upsert_of(media_item_id, *segments, replace=replace, kind=kind)])
    assert isinstance(result, UpsertResult), result
    return result


def find(
    index: SegmentIndex,
    text: str = "anything",
    top_k: int = 1000,
    kind: EmbeddingType = TRANSCRIPT,
    min_similarity: float = 0.0,
) -> list[Hit]:
    (hits,) = index.search([Search(kind, top_k, min_similarity)], vectors_of([text]))
    return hits


def stored(index: SegmentIndex, kind: EmbeddingType = TRANSCRIPT) -> dict[tuple[Id, Id], Segment]:
    """All segments of a type, by media item and segment id in the form that comes back."""
    return {(hit.media_item_id, hit.segment.id): hit.segment for hit in find(index, kind=kind)}
