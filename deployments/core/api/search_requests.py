"""Requests of the search routes."""

from dataclasses import replace
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from deployments.core.api.filter_schema import FilterIn
from deployments.core.fields import (
    Context,
    Duplicates,
    GroupSize,
    Name,
    Offset,
    Similarity,
    Text,
    TopK,
    refuse,
)
from deployments.core.own_vectors import Embedding
from deployments.core.search import cursors
from deployments.core.segments import EmbeddingType, Query, Search, SearchMode, SegmentName
from deployments.core.shapes import Shape

DUPLICATE_COSINE = 0.95
MOST_QUERIES = 100

OWN_QUERY = (
    "A vector to compare with instead of the query's, made elsewhere with the model of the index: "
    "numbers, or base64 of little-endian float32. It is normalised."
)


def needs_words(mode: SearchMode) -> None:
    """Refuse a mode that compares words in a search that has a vector only."""
    if mode != SearchMode.SEMANTIC:
        raise refuse(
            "missing_query",
            "mode {mode} compares words; send query too, or set mode to semantic",
            mode=mode.value,
        )


class SearchOptions(BaseModel):
    """What all searches have in common."""

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
    deduplicate: Duplicates = Field(
        default=False,
        description="Leave out a result whose vector has this cosine, or a higher one, to that of "
        f"a better result; true stands for {DUPLICATE_COSINE}, and 1 leaves out equal "
        "vectors only. The next ones take their places.",
    )
    context: Context = Field(
        default=0,
        description="How many segments before and after each result to give with it, of its media "
        "item and type and in the order of their times. They count against the limit of `top_k`.",
    )
    offset: Offset | None = Field(
        default=None,
        description="Leave out so many of the best results. Pages by `offset` shift when others "
        "write; those by `cursor` don't.",
    )
    cursor: str | None = Field(
        default=None,
        description="`*` for the first page, then `next_cursor` of the page before: pages of what "
        "was stored when the first one was read, less what was deleted or replaced since. None "
        "repeats a result or skips one that stays, whatever others add. Where others delete or "
        "replace, this holds in semantic search without `deduplicate`, and in groups up to a "
        "thousand media items; else a result may come again or be skipped. In "
        "`/search/similar` a cursor is refused once the segment itself was stored anew.",
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

    @property
    def most_segments(self) -> int:
        """How many segments the answer may have, neighbours included."""
        return self.top_k * self.group_size * (1 + 2 * self.context)

    def _search(
        self, mode: SearchMode, text: str, *ranking: object, highlight: bool = False
    ) -> Search:
        """The core's value; `ranking` is what else decides the ranking. Raises InvalidInput."""
        return Search(
            embedding_type=self.embedding_type,
            top_k=self.top_k,
            min_similarity=self.min_similarity,
            exact=self.exact,
            mode=mode,
            text=text,
            explain=self.explain,
            filter=self.filter,
            shape=self._shape(mode, *ranking),
            context=self.context,
            highlight=highlight,
        )

    def _shape(self, *ranking: object) -> Shape | None:
        in_groups = self.group_by is not None
        if self.deduplicate is True:
            duplicate_cosine: float | None = DUPLICATE_COSINE
        else:
            duplicate_cosine = self.deduplicate or None
        shape = Shape(self.offset or 0, in_groups, self.group_size, duplicate_cosine)
        if self.cursor is not None:
            key = cursors.key_of(
                self.embedding_type, self.min_similarity, self.filter, shape, *ranking
            )
            after = cursors.decoded(self.cursor, key)
            return replace(shape, cursor_key=key, after=after)
        return None if shape == Shape() and self.offset is None else shape


class SearchRequest(SearchOptions):
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
                {
                    "query": "S&P 500",
                    "mode": "hybrid",
                    "highlight": True,
                    "context": 2,
                },
                {"embedding": [0.12, -0.43, 0.08, 0.89], "embedding_type": "frame"},
            ],
            "anyOf": [{"required": ["query"]}, {"required": ["embedding"]}],
        },
    )

    embedding: Embedding | None = Field(default=None, description=OWN_QUERY)
    query: Text | None = Field(
        default=None,
        validate_default=True,
        description="Required unless there is an `embedding`; with both, its words count where "
        "words do: in keyword and hybrid search, and for `highlight`.",
    )
    mode: SearchMode = Field(
        default=SearchMode.SEMANTIC, description="Rank by meaning, by words (BM25), or by both."
    )
    highlight: bool = Field(
        default=False, description="Tell where each result has words of the query."
    )

    @field_validator("query")
    @classmethod
    def _check_query(cls, query: str | None, others: ValidationInfo) -> str | None:
        if query is None and others.data.get("embedding", b"") is None:
            raise refuse("missing", "is required, unless there is an embedding")
        return query

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        if self.query is None:
            needs_words(self.mode)
            if self.highlight:
                raise refuse("missing_query", "highlight shows words of the query; send query too")
        return self

    def question(self) -> Query:
        """The request as the core's value. Raises InvalidInput for a wrong cursor."""
        query = self.query or ""
        counts = self.highlight or self.mode != SearchMode.SEMANTIC
        ranking = [self.query] if self.embedding is None else [self.query, self.embedding]
        search = self._search(
            self.mode, query if counts else "", *ranking, highlight=self.highlight
        )
        own = () if self.embedding is None else ((self.embedding_type, self.embedding),)
        return Query(query, search, own)


class BatchRequest(BaseModel):
    """Several searches."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "queries": [
                        {"query": "when is a stock overbought?", "top_k": 3},
                        {"query": "a chart with two moving averages", "embedding_type": "frame"},
                    ]
                }
            ]
        },
    )

    queries: list[SearchRequest] = Field(min_length=1, max_length=MOST_QUERIES)


class SimilarRequest(SearchOptions):
    """A stored segment, and where to look for those whose meaning is near to its own."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "media_item_id": 101,
                    "segment_id": 5,
                    "filter": {"media_item_id": {"$ne": 101}},
                }
            ]
        },
    )

    media_item_id: Name
    segment_id: Name
    embedding_type: EmbeddingType = Field(
        default=EmbeddingType.TRANSCRIPT, description="Of the segment and of the results."
    )

    def name(self) -> SegmentName:
        """Which segment it is."""
        return SegmentName(self.embedding_type, self.media_item_id, self.segment_id)

    def search(self) -> Search:
        """The request as the core's value. Raises InvalidInput for a wrong cursor."""
        name = (str(self.media_item_id), str(self.segment_id))
        return self._search(SearchMode.SEMANTIC, "", "similar", *name)
