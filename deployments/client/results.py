"""What the client's methods return: the service's answers as frozen values."""

import sys
from array import array
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

Id = int | str
Json = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Segment:
    """A stored segment. Times are seconds; `metadata` holds every further field."""

    media_item_id: Id
    segment_id: Id
    text: str
    start_time: float | None
    end_time: float | None
    metadata: Json

    @staticmethod
    def fields(stored: Json) -> dict[str, Any]:
        """The fields of a segment from the service's `metadata`."""
        named = ("media_item_id", "segment_id", "text", "start_time", "end_time")
        further = {name: value for name, value in stored.items() if name not in named}
        return {name: stored[name] for name in named} | {"metadata": further}

    @classmethod
    def read(cls, stored: Json) -> "Segment":
        """The segment that the service's `metadata` describes."""
        return Segment(**Segment.fields(stored))


@dataclass(frozen=True, slots=True)
class ListedSegment(Segment):
    """A segment in a list of a media item's segments."""

    embedding_type: str

    @classmethod
    def read(cls, document: Json) -> "ListedSegment":
        """From one of `segments` in the answer."""
        return ListedSegment(
            **Segment.fields(document["metadata"]), embedding_type=document["embedding_type"]
        )


@dataclass(frozen=True, slots=True)
class Context:
    """Segments around a hit or a moment, each list by time; `during` is a moment's only."""

    before: tuple[Segment, ...]
    during: tuple[Segment, ...]
    after: tuple[Segment, ...]

    @classmethod
    def read(cls, document: Json | None) -> "Context | None":
        """From `context` in the answer, if it is there."""
        if document is None:
            return None
        parts = (document.get(name, ()) for name in ("before", "during", "after"))
        return Context(*(tuple(map(Segment.read, part)) for part in parts))


@dataclass(frozen=True, slots=True)
class Hit(Segment):
    """A segment that was found.

    `distance` is 1 − cosine, `similarity` 1 − distance clamped to 0…1; `score` ranks keyword and
    hybrid searches. `highlights` are pairs of positions in `text`, each up to before its end. What
    wasn't asked for is None, or empty for `others`.
    """

    similarity: float
    distance: float
    score: float | None
    highlights: tuple[tuple[int, int], ...] | None
    context: Context | None
    others: tuple["Hit", ...]
    explain: Json | None

    @classmethod
    def read(cls, document: Json) -> "Hit":
        """From one of `results`, or of a moment's `evidence`."""
        marks = document.get("highlights")
        return Hit(
            **Segment.fields(document["metadata"]),
            similarity=document["similarity"],
            distance=document["distance"],
            score=document.get("score"),
            highlights=None if marks is None else tuple((start, end) for start, end in marks),
            context=Context.read(document.get("context")),
            others=tuple(map(Hit.read, document.get("others") or ())),
            explain=document.get("explain"),
        )


@dataclass(frozen=True, slots=True)
class Hits:
    """What a search found, best first: a sequence of hits.

    `exhausted` is true if nothing else matches, as far as the service was asked to find out;
    `next_cursor` is that of the next page.
    """

    hits: tuple[Hit, ...]
    exhausted: bool
    next_cursor: str | None

    @classmethod
    def read(cls, document: Json) -> Self:
        """From the answer of /search."""
        return cls(
            tuple(map(Hit.read, document["results"])),
            bool(document.get("exhausted")),
            document.get("next_cursor"),
        )

    @classmethod
    def read_batch(cls, document: Json) -> tuple[Self, ...]:
        """From the answer of /search/batch."""
        return tuple(map(cls.read, document["responses"]))

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, position: int) -> Hit:
        return self.hits[position]


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of a media item, in seconds; without times if its segments have none.

    `evidence` has by type what was found in it, best first. Scores compare within one answer.
    """

    media_item_id: Id
    start_time: float | None
    end_time: float | None
    score: float
    evidence: Mapping[str, tuple[Hit, ...]]
    context: Context | None
    explain: Json | None

    @classmethod
    def read(cls, document: Json) -> "Moment":
        """From one of `moments`."""
        return cls(
            document["media_item_id"],
            document["start_time"],
            document["end_time"],
            document["score"],
            {kind: tuple(map(Hit.read, hits)) for kind, hits in document["evidence"].items()},
            Context.read(document.get("context")),
            document.get("explain"),
        )

    @classmethod
    def read_all(cls, document: Json) -> tuple["Moment", ...]:
        """From the answer of /search/moments."""
        return tuple(map(cls.read, document["moments"]))


@dataclass(frozen=True, slots=True)
class Stored:
    """What a call of `embed` stored; all of it is durable and can be found.

    Of `embeddings_created` segments, `changed` weren't stored so before, and the text of
    `truncated` is longer than the model reads. `removed` counts what `replace` took away.
    """

    media_item_id: Id
    embedding_type: str
    embeddings_created: int
    changed: int
    removed: int
    truncated: int

    @classmethod
    def read(cls, document: Json) -> "Stored":
        """From the answer of /embed."""
        return cls(*(document[name] for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class StoredMany:
    """What `store_many` has stored so far, in sums over its calls."""

    calls: int = 0
    embeddings_created: int = 0
    changed: int = 0
    truncated: int = 0

    def __add__(self, stored: Stored) -> "StoredMany":
        return StoredMany(
            self.calls + 1,
            self.embeddings_created + stored.embeddings_created,
            self.changed + stored.changed,
            self.truncated + stored.truncated,
        )


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many segments a deletion removed."""

    media_item_id: Id
    embedding_type: str | None
    embeddings_deleted: int

    @classmethod
    def read(cls, document: Json) -> "Deleted":
        """From the answer of DELETE /media/{media_item_id}."""
        return cls(*(document[name] for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of texts: of each an array of float32, of length 1 in the Euclidean norm.

    `numpy.array(embeddings.vectors)` has the shape (texts, dimension).
    """

    vectors: tuple["array[float]", ...]
    model: str
    prompt_tokens: int

    @classmethod
    def read(cls, document: Json) -> "Embeddings":
        """From the answer of /v1/embeddings in base64."""
        rows = sorted(document["data"], key=lambda row: row["index"])
        vectors = tuple(_floats(row["embedding"]) for row in rows)
        return cls(vectors, document["model"], document["usage"]["prompt_tokens"])

    @classmethod
    def joined(cls, model: str, parts: Sequence["Embeddings"]) -> "Embeddings":
        """The parts as one, in their order."""
        vectors = tuple(vector for part in parts for vector in part.vectors)
        return cls(vectors, model, sum(part.prompt_tokens for part in parts))


def _floats(encoded: str) -> "array[float]":
    vector = array("f", b64decode(encoded))
    if sys.byteorder == "big":
        vector.byteswap()
    return vector


@dataclass(frozen=True, slots=True)
class MediaItem:
    """A media item that has segments, and how many by type."""

    media_item_id: Id
    segments: Mapping[str, int]

    @classmethod
    def read(cls, document: Json) -> "MediaItem":
        """From one of `media`."""
        return cls(document["media_item_id"], document["segments"])


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list; `next_cursor` is that of the next one, None after the last."""

    items: tuple[T, ...]
    next_cursor: str | None


def read_page(name: str, read: Callable[[Json], T]) -> Callable[[Json], Page[T]]:
    """A reader of pages whose items are called `name`."""
    return lambda document: Page(tuple(map(read, document[name])), document.get("next_cursor"))


@dataclass(frozen=True, slots=True)
class Stats:
    """How many vectors of which model the service holds, and how each index is searched."""

    model_name: str
    embedding_dimension: int
    transcript_vectors: int
    frame_vectors: int
    clip_vectors: int
    total_vectors: int
    indices: Mapping[str, Json]
    last_write: str | None
    encoder_replicas: int | None
    salvage: Json | None
    timestamp: str

    @classmethod
    def read(cls, document: Json) -> "Stats":
        """From the answer of /stats."""
        optional = ("last_write", "encoder_replicas", "salvage")
        values = {n: document[n] for n in cls.__slots__ if n not in (*optional, "indices")}
        values |= {name: document.get(name) for name in optional}
        return cls(**values, indices=document.get("indices") or {})


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a request could be served, and if not, why."""

    status: str
    reason: str | None
    stats: Stats | None

    @property
    def healthy(self) -> bool:
        """Whether an encode and a search really worked."""
        return self.status == "healthy"

    @classmethod
    def read(cls, document: Json) -> "Health":
        """From the answer of /health."""
        stats = document.get("stats")
        return cls(
            document["status"],
            document.get("reason"),
            None if stats is None else Stats.read(stats),
        )
