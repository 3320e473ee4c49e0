"""The plain values that travel between Ingress, Encoder and Index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deployments.core.damage import Damage, Salvage
from deployments.core.filters import Filter
from deployments.core.shapes import Shape

if TYPE_CHECKING:
    from deployments.core.storage.migration_record import MigrationStatus

Id = int | str
"""Names a media item or a segment. 1 and "1" are the same name."""

Vectors = npt.NDArray[np.float32]
"""L2-normalised embeddings, shape (rows, dimension), float32, C-contiguous."""

Vector = npt.NDArray[np.float32]
"""One of them, shape (dimension,)."""

Queries = Vectors | Sequence[Vector]
"""What is searched for: vectors of one model, or each of a model of its own."""


class EmbeddingType(StrEnum):
    """What a segment is; each type has an index of its own."""

    TRANSCRIPT = "transcript"
    FRAME = "frame"
    CLIP = "clip"


class SearchMode(StrEnum):
    """By what segments are ranked: their meaning, their words, or both."""

    SEMANTIC = "semantic"
    KEYWORD = "keyword"
    HYBRID = "hybrid"


class IndexType(StrEnum):
    """How a type's rows are searched; all but `flat` scan candidates and score those exactly."""

    AUTO = "auto"
    """`flat` as long as that is fast, then `pq`."""
    FLAT = "flat"
    """Scans every vector."""
    HNSW = "hnsw"
    """Walks a graph: the fastest search, the slowest build."""
    IVF = "ivf"
    """Scans the clusters that are nearest to the query."""
    RABITQ = "rabitq"
    """Scans one bit for each dimension: the smallest, and the quickest to build."""
    PQ = "pq"
    """Scans four bits for every three dimensions, by product quantisation."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which vectors can be compared: those whose fingerprint is equal.

    `name` is for people; `fingerprint` is a hexadecimal SHA-256 of what decides the vectors
    (weights, pooling, token limit); `dimension` is the length of a vector.
    """

    name: str
    fingerprint: str
    dimension: int

    def makes_the_same_as(self, other: "ModelIdentity") -> bool:
        """Whether vectors of the two can be compared; the names don't matter."""
        return (self.fingerprint, self.dimension) == (other.fingerprint, other.dimension)


Models = Mapping[EmbeddingType, ModelIdentity]
"""The model of each type's vectors."""


def models_by_type(models: ModelIdentity | Models) -> Models:
    """The model of each type, where one may stand for all."""
    if isinstance(models, ModelIdentity):
        return dict.fromkeys(EmbeddingType, models)
    return {kind: models[kind] for kind in EmbeddingType}


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a media item. Times are seconds; `metadata` holds every further field."""

    id: Id
    text: str
    start_time: float | int | None = None
    end_time: float | int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    embedding: bytes | None = None
    """Of a segment to store: its vector, if the caller made it, as little-endian float32."""
    image_digest: bytes | None = None
    """Of a segment to store: which image its vector is made of, if it isn't the text."""


@dataclass(frozen=True, slots=True)
class Upsert:
    """Segments of one media item to store, with the vectors that are known so far.

    `vectors[i]` belongs to `segments[vector_positions[i]]`, which has no `embedding` of its own. A
    segment without a vector is stored only if the store already has one for the same text in the
    same media item and type.
    `fingerprint` is that of the model that made them, if it isn't certain that it is the index'.
    `truncated_positions` are those of the encoded segments whose text exceeded the model's limit.
    With `replace`, the segments become the media item's only ones of that type.
    """

    embedding_type: EmbeddingType
    media_item_id: Id
    segments: tuple[Segment, ...]
    replace: bool = False
    vectors: Vectors | None = None
    vector_positions: tuple[int, ...] = ()
    truncated_positions: tuple[int, ...] = ()
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class UpsertResult:
    """What became of an Upsert.

    With `missing` empty, all `stored` segments are durable and searchable, `changed` of them were
    not stored so before, and `truncated` have a text beyond the model's limit. Otherwise nothing
    was applied, and the segments at the positions in `missing` need vectors.
    """

    stored: int = 0
    changed: int = 0
    removed: int = 0
    truncated: int = 0
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DeleteMedia:
    """Remove a media item's segments, of one type or of all."""

    media_item_id: Id
    embedding_type: EmbeddingType | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for in one index: the best `top_k` with a similarity of `min_similarity`.

    With `exact`, every vector is scanned, whatever type the index is of.

    `text` is what keyword and hybrid search compare with the segments' words.
    """

    embedding_type: EmbeddingType
    top_k: int
    min_similarity: float = 0.0
    exact: bool = False
    mode: SearchMode = SearchMode.SEMANTIC
    text: str = ""
    explain: bool = False
    filter: Filter | None = None
    """Only segments that match are compared; every one of them, whatever type the index is of."""
    shape: Shape | None = None
    """With one, every vector is scanned too."""
    context: int = 0
    """How many of the segments before and after each hit to give."""
    highlight: bool = False
    """Whether to tell where each hit has terms of `text`."""

    @property
    def embedding_types(self) -> tuple[EmbeddingType, ...]:
        """The indices that are searched: one."""
        return (self.embedding_type,)


@dataclass(frozen=True, slots=True)
class MomentSearch:
    """What moments to look for: the best `top_k`, by hits in the indices of the types in `weights`.

    A type's hits count by its weight. With `context`, each moment has so many transcript segments
    before it and after it. The other fields are those of a Search.
    """

    weights: tuple[tuple[EmbeddingType, float], ...]
    top_k: int
    min_similarity: float = 0.0
    mode: SearchMode = SearchMode.HYBRID
    text: str = ""
    explain: bool = False
    filter: Filter | None = None
    context: int = 0

    @property
    def embedding_types(self) -> tuple[EmbeddingType, ...]:
        """The indices that are searched."""
        return tuple(kind for kind, _ in self.weights)


@dataclass(frozen=True, slots=True)
class Query:
    """A text to encode, and where to look for what is near to it.

    For a type in `embeddings` the vector there, little-endian float32, takes the text's place.
    """

    text: str
    search: Search | MomentSearch
    embeddings: tuple[tuple[EmbeddingType, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class SegmentName:
    """Names a stored segment."""

    embedding_type: EmbeddingType
    media_item_id: Id
    segment_id: Id


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of a search says of a hit.

    `rank`, from 1, is None where the part didn't find the hit by itself. `value` is the cosine, or
    the BM25 score. `score` is what the part adds to the score of a hybrid search.
    """

    rank: int | None
    value: float
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a hit is where it is."""

    semantic: Part
    keyword: Part | None = None
    fusion: float | None = None
    """The sum of the parts' scores, where both count."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A stored segment that a search found, with its cosine to the query, -1…1.

    `score` is by what keyword and hybrid search rank, `others` are the next hits of the same media
    item, if results are grouped. `before` and `after` are its neighbours in time, `highlights`
    where its text has terms of the query: characters from each start to before its end.
    """

    cosine: float
    sequence: int
    media_item_id: Id
    segment: Segment
    score: float | None = None
    explanation: Explanation | None = None
    others: tuple["Hit", ...] | None = None
    before: tuple[Segment, ...] | None = None
    after: tuple[Segment, ...] | None = None
    highlights: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class IndexState:
    """How one type's rows are searched at the moment."""

    configured: IndexType
    """What the settings ask for."""
    type: IndexType
    """What answers: `flat` until the first main part of the configured type is built."""
    rows: int
    deleted_rows: int
    """Rows that were deleted and still take up memory."""
    main_rows: int
    """Rows of the main part, deleted ones included; those that came later are scanned."""
    building: bool
    build_progress: float | None
    """0…1 while a main part is built."""
    recall_at_10: float | None
    """Share of the true best ten found for a sample of the index' own vectors; None if that
    wasn't measured for the present main part."""


@dataclass(frozen=True, slots=True)
class IndexStats:
    """State of the index: model and rows by type, and the store's last sequence number."""

    models: Models
    vectors: dict[EmbeddingType, int]
    last_sequence: int
    rebuilt: dict[EmbeddingType, str] = field(default_factory=dict)
    """Types whose checkpoint could not be used at the last start, and why."""
    damage: Damage | None = None
    """What is wrong with the store; writes are refused then."""
    salvage: Salvage | None = None
    """What is left, if a damaged store is only searched."""
    indices: dict[EmbeddingType, IndexState] = field(default_factory=dict, compare=False)
    """How each type is searched. Changes by itself, so it doesn't count when comparing."""
    last_write_at: float | None = field(default=None, compare=False)
    """Unix seconds of the last commit since the start."""
    migration: "MigrationStatus | None" = None
    """The change to another model, while there is one."""
