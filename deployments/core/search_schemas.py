"""Requests and responses of the search routes."""

from pydantic import BaseModel, ConfigDict, Field

from deployments.core.fields import Similarity, Text, TopK
from deployments.core.filter_schema import FilterIn
from deployments.core.schemas import Timestamp, now
from deployments.core.segments import EmbeddingType, SearchMode


class SearchRequest(BaseModel):
    """What to look for, and where."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "query": "relative strength index overbought",
                    "embedding_type": "transcript",
                    "top_k": 5,
                    "min_similarity": 0.3,
                },
                {
                    "query": "relative strength index overbought",
                    "filter": {"media_item_id": {"$in": [101, 102]}, "speaker": "Instructor"},
                },
            ]
        },
    )

    query: Text
    embedding_type: EmbeddingType = EmbeddingType.TRANSCRIPT
    top_k: TopK = Field(default=10, description="How many results at most.")
    min_similarity: Similarity = Field(
        default=0.0, description="Leave out results below this similarity, 0 to 1."
    )
    exact: bool = Field(
        default=False,
        description="Compare with every vector, whatever the type of the index: slower, and the "
        "true best.",
    )
    mode: SearchMode = Field(
        default=SearchMode.SEMANTIC, description="Rank by meaning, by words (BM25), or by both."
    )
    explain: bool = Field(default=False, description="Say why each result is where it is.")
    filter: FilterIn = None


class SegmentMetadata(BaseModel):
    """The stored segment, with every further field that it was stored with."""

    model_config = ConfigDict(extra="allow")

    media_item_id: int | str
    segment_id: int | str
    start_time: int | float | None
    end_time: int | float | None
    text: str


class SemanticPart(BaseModel):
    """How near a result's meaning is to the query's."""

    rank: int | None = Field(description="By similarity, from 1; null if not among the nearest.")
    similarity: float
    score: float | None = Field(description="What it adds to the score of a hybrid search.")


class KeywordPart(BaseModel):
    """How well a result's words match the query's."""

    rank: int | None = Field(description="By BM25, from 1; null if not among the best.")
    bm25: float
    score: float | None = Field(description="What it adds to the score of a hybrid search.")


class ResultExplanation(BaseModel):
    """Why a result is where it is."""

    semantic: SemanticPart
    keyword: KeywordPart | None = Field(description="Null in semantic search.")
    fusion: float | None = Field(description="The sum of both scores in hybrid search, else null.")


class SearchResult(BaseModel):
    """A segment that was found."""

    index: int = Field(description="Position in the list, from 0.")
    similarity: float = Field(description="1 - distance, clamped to 0…1.")
    distance: float = Field(description="1 - cosine similarity of query and segment.")
    score: float | None = Field(
        default=None, description="By which keyword and hybrid search rank; only there."
    )
    explain: ResultExplanation | None = Field(default=None, description="Only if asked for.")
    metadata: SegmentMetadata


class SearchResponse(BaseModel):
    """Results, best first."""

    query: str
    embedding_type: EmbeddingType
    results: list[SearchResult]
    exhausted: bool | None = Field(
        default=None,
        description="Only with a filter, and only if true: nothing else matches.",
        examples=[True],
    )
    timestamp: Timestamp = Field(default_factory=now)
