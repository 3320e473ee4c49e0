"""Request and response of the search for moments."""

from collections.abc import Set
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)

from deployments.core.api.filter_schema import FilterIn
from deployments.core.api.search_requests import needs_words
from deployments.core.api.search_schemas import ResultExplanation, SegmentMetadata
from deployments.core.fields import Similarity, Text, no_boolean, refuse
from deployments.core.own_vectors import Embedding
from deployments.core.segments import EmbeddingType, MomentSearch, Query, SearchMode
from deployments.core.timestamps import Timestamp, now

MOST_MOMENTS = 100
MOST_CONTEXT = 20

Weight = Annotated[FiniteFloat, BeforeValidator(no_boolean), Field(gt=0, le=100)]
Moments = Annotated[int, BeforeValidator(no_boolean), Field(ge=1, le=MOST_MOMENTS)]
Neighbours = Annotated[int, BeforeValidator(no_boolean), Field(ge=0, le=MOST_CONTEXT)]


def _every_type() -> dict[EmbeddingType, float]:
    return dict.fromkeys(EmbeddingType, 1.0)


class MomentRequest(BaseModel):
    """What moments to look for."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {"query": "RSI above 70 on the chart", "top_k": 3, "context": 2},
                {
                    "query": "a hammer candle at support",
                    "types": {"transcript": 1, "frame": 0.5},
                    "filter": {"media_item_id": {"$in": [101, 102]}},
                    "explain": True,
                },
                {
                    "query": "a hammer candle at support",
                    "embeddings": {"frame": [0.12, -0.43, 0.08, 0.89]},
                },
            ],
            "anyOf": [{"required": ["query"]}, {"required": ["embeddings"]}],
        },
    )

    embeddings: dict[EmbeddingType, Embedding] | None = Field(
        default=None,
        min_length=1,
        description="By type a vector to compare with instead of the query's, made elsewhere with "
        "the model of that index: numbers, or base64 of little-endian float32.",
    )
    query: Text | None = Field(
        default=None,
        validate_default=True,
        description="Required unless each of the `types` has one of the `embeddings`.",
    )
    types: dict[EmbeddingType, Weight] = Field(
        default_factory=_every_type,
        min_length=1,
        description="The indices to search, and how much the hits of each count; by default all "
        "that the request can be compared with, alike.",
    )
    top_k: Moments = Field(default=10, description="How many moments at most.")
    mode: SearchMode = Field(
        default=SearchMode.HYBRID,
        description="Find segments by meaning, by words (BM25), or by both.",
    )
    min_similarity: Similarity = Field(
        default=0.0, description="Leave out segments below this similarity, 0 to 1."
    )
    filter: FilterIn = None
    explain: bool = Field(default=False, description="Say why each moment is where it is.")
    context: Neighbours = Field(
        default=0,
        description="How many transcript segments to give from before each moment and from after "
        "it; with any, those during it come too, 20 at most.",
    )

    @field_validator("query")
    @classmethod
    def _check_query(cls, query: str | None, others: ValidationInfo) -> str | None:
        if query is None and others.data.get("embeddings", ()) is None:
            raise refuse("missing", "is required, unless there are embeddings")
        return query

    @model_validator(mode="after")
    def _check_embeddings(self) -> Self:
        own = self.embeddings or {}
        unused = [kind.value for kind in own if kind not in self.types]
        if unused:
            raise refuse(
                "unused_embedding",
                "there is an embedding for {unused}, which isn't among the types",
                unused=" and ".join(unused),
            )
        if self.query is None:
            needs_words(self.mode)
            bare = [kind.value for kind in self.types if kind not in own]
            if bare:
                raise refuse(
                    "missing_query",
                    "there is no embedding for {bare}; send query too, or leave it out of types",
                    bare=" and ".join(bare),
                )
        return self

    def question(self, external: Set[EmbeddingType] = frozenset()) -> Query:
        """The request as the core's value; the `external` types can't be compared with a text."""
        query, own = self.query or "", self.embeddings or {}
        kinds = [kind for kind in EmbeddingType if kind in self.types]
        if "types" not in self.model_fields_set:
            kinds = [kind for kind in kinds if kind in own or kind not in external] or kinds
        search = MomentSearch(
            tuple((kind, self.types[kind]) for kind in kinds),
            self.top_k,
            self.min_similarity,
            self.mode,
            "" if self.mode == SearchMode.SEMANTIC else query,
            self.explain,
            self.filter,
            self.context,
        )
        return Query(query, search, tuple((kind, own[kind]) for kind in kinds if kind in own))


class MomentEvidence(BaseModel):
    """A segment that was found in a moment."""

    similarity: float = Field(description="1 - distance, clamped to 0…1.")
    distance: float = Field(description="1 - cosine similarity of query and segment.")
    score: float | None = Field(default=None, description="As in a search; not in semantic ones.")
    explain: ResultExplanation | None = Field(default=None, description="Only if asked for.")
    strength: float | None = Field(
        default=None,
        description="Only if asked for: its similarity and score, from 0 to 1 for the best segment "
        "of all, times the weight of its type.",
    )
    metadata: SegmentMetadata


class MomentExplanation(BaseModel):
    """The two parts of a moment's score."""

    strength: float = Field(description="That of its best segment.")
    support: float = Field(description="What the media item's other hits add, the nearer the more.")


class MomentContext(BaseModel):
    """What is said around a moment, by time."""

    before: list[SegmentMetadata]
    during: list[SegmentMetadata]
    after: list[SegmentMetadata]


class FoundMoment(BaseModel):
    """A stretch of a media item."""

    media_item_id: int | str
    start_time: int | float | None = Field(description="Null if its segments have no times.")
    end_time: int | float | None
    score: float = Field(description="Comparable within one answer only.")
    explain: MomentExplanation | None = Field(default=None, description="Only if asked for.")
    evidence: dict[EmbeddingType, list[MomentEvidence]] = Field(
        description="By type, the segments that were found in it or within 3 s of it, best first."
    )
    context: MomentContext | None = Field(
        default=None, description="Only if asked for, and if the moment has times."
    )


class MomentsResponse(BaseModel):
    """Moments, best first."""

    query: str | None = Field(description="As asked; null where only embeddings were sent.")
    moments: list[FoundMoment]
    exhausted: bool | None = Field(
        default=None,
        description="Only if true: these are fewer than `top_k`, and nothing else matches.",
        examples=[True],
    )
    timestamp: Timestamp = Field(default_factory=now)
