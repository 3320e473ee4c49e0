"""The requests that the client can make, and how their answers are read."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote

from deployments.client.bodies import check_text
from deployments.client.results import (
    Deleted,
    Embeddings,
    Health,
    Hits,
    Id,
    Json,
    ListedSegment,
    MediaItem,
    Moment,
    Page,
    Stats,
    Stored,
    read_page,
)

T = TypeVar("T")

EmbeddingType = Literal["transcript", "frame", "clip"]
Mode = Literal["semantic", "keyword", "hybrid"]

DEFAULT_URL = "http://localhost:8004"

ENCODE_SIZE = 256
"""Texts of a request for their vectors."""


class SimilarOptions(TypedDict, total=False):
    """What a search for similar segments may say; the meanings are those of the REST API."""

    top_k: int
    min_similarity: float
    exact: bool
    explain: bool
    filter: Json | None
    group_by: Literal["media_item_id"] | None
    group_size: int
    deduplicate: bool | float
    context: int
    offset: int | None
    cursor: str | None


class SearchOptions(SimilarOptions, total=False):
    """What a search may say beside its query; the meanings are those of the REST API."""

    embedding: Sequence[float]
    embedding_type: EmbeddingType
    mode: Mode
    highlight: bool


class MomentOptions(TypedDict, total=False):
    """What a search for moments may say beside its query."""

    embeddings: Mapping[EmbeddingType, Sequence[float]]
    types: Mapping[EmbeddingType, float]
    top_k: int
    mode: Mode
    min_similarity: float
    filter: Json | None
    explain: bool
    context: int


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, and what reads the answer's JSON.

    `repeatable` tells whether the answer is right if the service gets the request twice. An answer
    with a status of `readable` is read as one with 200.
    """

    method: str
    path: str
    read: Callable[[Json], T]
    body: Json | None = None
    params: Mapping[str, Any] | None = None
    repeatable: bool = True
    readable: tuple[int, ...] = ()


def embed(
    media_item_id: Id, segments: Iterable[Json], embedding_type: str, *, replace: bool
) -> Call[Stored]:
    """POST /embed."""
    body = {
        "media_item_id": media_item_id,
        "embedding_type": embedding_type,
        "segments": [_with_plain_vector(segment) for segment in segments],
    }
    return Call("POST", "/embed", Stored.read, body | ({"replace": True} if replace else {}))


def search(query: str | None, options: Mapping[str, Any]) -> Call[Hits]:
    """POST /search."""
    body = _with_plain_vector(_given({"query": query, **options}))
    return Call("POST", "/search", Hits.read, body)


def search_batch(queries: Iterable[str | Json], options: Mapping[str, Any]) -> Call[Any]:
    """POST /search/batch; a query may be a mapping with options of its own."""
    common = _given(options)
    searches = [
        _with_plain_vector({**common, **({"query": query} if isinstance(query, str) else query)})
        for query in queries
    ]
    return Call("POST", "/search/batch", Hits.read_batch, {"queries": searches})


def similar(
    media_item_id: Id, segment_id: Id, embedding_type: str, options: Mapping[str, Any]
) -> Call[Hits]:
    """POST /search/similar."""
    body = {
        "media_item_id": media_item_id,
        "segment_id": segment_id,
        "embedding_type": embedding_type,
        **_given(options),
    }
    return Call("POST", "/search/similar", Hits.read, body)


def moments(query: str | None, options: Mapping[str, Any]) -> Call[tuple[Moment, ...]]:
    """POST /search/moments."""
    body = _given({"query": query, **options})
    if "embeddings" in body:
        body["embeddings"] = {kind: _plain(own) for kind, own in body["embeddings"].items()}
    return Call("POST", "/search/moments", Moment.read_all, body)


def text_parts(texts: str | Sequence[str]) -> list[list[str]]:
    """Texts in parts that a request may have; one text is a list of one."""
    every = [texts] if isinstance(texts, str) else list(texts)
    return [every[start : start + ENCODE_SIZE] for start in range(0, len(every), ENCODE_SIZE)]


def encode(texts: Sequence[str], model: str, input_type: str) -> Call[Embeddings]:
    """POST /v1/embeddings."""
    body = {
        "input": list(texts),
        "model": model,
        "input_type": input_type,
        "encoding_format": "base64",
    }
    return Call("POST", "/v1/embeddings", Embeddings.read, body)


def model_name() -> Call[str]:
    """GET /v1/models."""
    return Call("GET", "/v1/models", lambda document: str(document["data"][0]["id"]))


def delete_media(media_item_id: Id, embedding_type: str | None) -> Call[Deleted]:
    """DELETE /media/{media_item_id}; repeated it would find nothing, and say so."""
    return Call(
        "DELETE",
        _media_path(media_item_id),
        Deleted.read,
        params=_given({"embedding_type": embedding_type}),
        repeatable=False,
    )


def media(embedding_type: str | None, limit: int, cursor: str | None) -> Call[Page[MediaItem]]:
    """GET /media."""
    params = _given({"embedding_type": embedding_type, "limit": limit, "cursor": cursor})
    return Call("GET", "/media", read_page("media", MediaItem.read), params=params)


def segments(
    media_item_id: Id, embedding_type: str | None, limit: int, cursor: str | None
) -> Call[Page[ListedSegment]]:
    """GET /media/{media_item_id}/segments."""
    params = _given({"embedding_type": embedding_type, "limit": limit, "cursor": cursor})
    path = f"{_media_path(media_item_id)}/segments"
    return Call("GET", path, read_page("segments", ListedSegment.read), params=params)


def stats() -> Call[Stats]:
    """GET /stats."""
    return Call("GET", "/stats", Stats.read)


def health() -> Call[Health]:
    """GET /health; what is wrong is an answer too."""
    return Call("GET", "/health", Health.read, readable=(503,))


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _with_plain_vector(document: Json) -> dict[str, Any]:
    """With an `embedding` that may be an array as a list."""
    own = {"embedding": _plain(document["embedding"])} if "embedding" in document else {}
    return {**document, **own}


def _plain(vector: Any) -> Any:
    return vector.tolist() if hasattr(vector, "tolist") else vector


def _media_path(media_item_id: Id) -> str:
    name = str(media_item_id)
    check_text("media_item_id", name)
    # As they are, these two would be folders, and resolved away.
    encoded = name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")
    return f"/media/{encoded}"
