"""Requests and responses of the search routes."""

from dataclasses import replace
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deployments.core import cursors
from deployments.core.fields import GroupSize, Offset, Share, Similarity, Text, TopK, refuse
from deployments.core.filter_schema import FilterIn
from deployments.core.schemas import Timestamp, now
from deployments.core.segments import EmbeddingType, Search, SearchMode
from deployments.core.shapes import Shape

DUPLICATE_COSINE = 0.95
MOST_CURSOR_CHARS = 512


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
                {
                    "query": "support and resistance",
                    "group_by": "media_item_id",
                    "group_size": 3,
                    "deduplicate": True,
                    "cursor": "*",
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
    group_by: Literal["media_item_id"] | None = Field(
        default=None,
        description="Let each result be of another media item; `top_k` counts these.",
    )
    group_size: GroupSize = Field(
        default=1,
        description="With `group_by`: how many hits of a media item to give, the best one as the "
        "result and the next ones as its `others`.",
    )
    deduplicate: bool | Share = Field(
        default=False,
        description="Leave out a result whose vector has this cosine, or a higher one, to that of "
        f"a better result; true stands for {DUPLICATE_COSINE}. The next ones take their places.",
    )
    offset: Offset | None = Field(
        default=None,
        description="Leave out so many of the best results. Pages by `offset` shift when others "
        "write; those by `cursor` don't.",
    )
    cursor: str | None = Field(
        default=None,
        max_length=MOST_CURSOR_CHARS,
        description="`*` for the first page, then `next_cursor` of the page before: pages of what "
        "was stored when the first one was read, less what was deleted or replaced since. "
        "Whatever others store, none repeats a result or skips one.",
        examples=["*"],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.group_size > 1 and self.group_by is None:
            raise refuse(
                "group_size",
                "group_size is {size}, but group_by isn't set; set it to media_item_id",
                size=self.group_size,
            )
        if self.offset is not None and self.cursor is not None:
            raise refuse("two_places", "send offset or cursor, not both")
        return self

    def search(self) -> Search:
        """The request as the core's value. Raises InvalidInput for a wrong cursor."""
        mode = self.mode
        return Search(
            self.embedding_type,
            self.top_k,
            self.min_similarity,
            self.exact,
            mode,
            "" if mode == SearchMode.SEMANTIC else self.query,
            self.explain,
            self.filter,
            self._shape(),
        )

    def _shape(self) -> Shape | None:
        in_groups = self.group_by is not None
        if self.deduplicate is True:
            duplicate_cosine: float | None = DUPLICATE_COSINE
        else:
            duplicate_cosine = self.deduplicate or None
        shape = Shape(self.offset or 0, in_groups, self.group_size, duplicate_cosine)
        if self.cursor is not None:
            key = cursors.key_of(
                self.query, self.embedding_type, self.mode, self.min_similarity, self.filter, shape
            )
            after = cursors.decoded(self.cursor, key)
            return replace(shape, cursor_key=key, after=after)
        return None if shape == Shape() and self.offset is None else shape


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
    others: list["SearchResult"] | None = Field(
        default=None,
        description="Only with `group_by`: the next hits of the same media item, best first.",
    )
    metadata: SegmentMetadata


class SearchResponse(BaseModel):
    """Results, best first."""

    query: str
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
        examples=["WzEsIm9oWkN5U1VOQ3pYVyIsMTI1MCwwLjgwNywxMDRd"],
    )
    timestamp: Timestamp = Field(default_factory=now)
