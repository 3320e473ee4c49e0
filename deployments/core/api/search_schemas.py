"""Responses of the search routes."""

from pydantic import BaseModel, ConfigDict, Field

from deployments.core.segments import EmbeddingType
from deployments.core.timestamps import Timestamp, now


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


class SearchContext(BaseModel):
    """The neighbours in time of a result, of its media item and type, each list by time."""

    before: list[SegmentMetadata]
    after: list[SegmentMetadata]


class SearchResult(BaseModel):
    """A segment that was found."""

    index: int = Field(description="Position in the list, from 0.")
    similarity: float = Field(description="1 - distance, clamped to 0…1.")
    distance: float = Field(description="1 - cosine similarity of query and segment.")
    score: float | None = Field(
        default=None, description="By which keyword and hybrid search rank; only there."
    )
    explain: ResultExplanation | None = Field(default=None, description="Only if asked for.")
    highlights: list[tuple[int, int]] | None = Field(
        default=None,
        description="Only with `highlight`: where `text` has words of the query, in characters "
        "(Unicode code points) from each start to before its end.",
        examples=[[[10, 17]]],
    )
    context: SearchContext | None = Field(default=None, description="Only with `context`.")
    others: list["SearchResult"] | None = Field(
        default=None,
        description="Only with `group_by`: the next hits of the same media item, best first.",
    )
    metadata: SegmentMetadata


class SearchResponse(BaseModel):
    """Results, best first."""

    query: str | None = Field(description="As asked; null where only an embedding was sent.")
    embedding_type: EmbeddingType
    results: list[SearchResult]
    exhausted: bool | None = Field(
        default=None,
        description="Only with a filter, `group_by`, `deduplicate`, `offset` or `cursor`, and only "
        "if true: nothing else matches.",
        examples=[True],
    )
    next_cursor: str | None = Field(
        default=None,
        description="Only with a `cursor`: that of the next page, null after the last one.",
        examples=["WzEsIm1vaFpDeVVTTkN6WCIsMTI1MCwwLjgwNywxMDQsIiIsIktmVDNzR3ExIl0"],
    )
    timestamp: Timestamp = Field(default_factory=now)


class BatchResponse(BaseModel):
    """The answers to several searches, in their order."""

    responses: list[SearchResponse]
    timestamp: Timestamp = Field(default_factory=now)


class SimilarResponse(BaseModel):
    """Segments near to a stored one, best first; it isn't among them."""

    media_item_id: int | str
    segment_id: int | str
    embedding_type: EmbeddingType
    results: list[SearchResult]
    exhausted: bool | None = Field(default=None, description="As in a SearchResponse.")
    next_cursor: str | None = Field(default=None, description="As in a SearchResponse.")
    timestamp: Timestamp = Field(default_factory=now)
