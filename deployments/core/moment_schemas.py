"""Request and response of the search for moments."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat

from deployments.core.fields import Similarity, Text, no_boolean
from deployments.core.filter_schema import FilterIn
from deployments.core.schemas import Timestamp, now
from deployments.core.search_schemas import ResultExplanation, SegmentMetadata
from deployments.core.segments import EmbeddingType, MomentSearch, SearchMode

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
            ]
        },
    )

    query: Text
    types: dict[EmbeddingType, Weight] = Field(
        default_factory=_every_type,
        min_length=1,
        description="The indices to search, and how much the hits of each count; by default all, "
        "alike.",
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

    def search(self) -> MomentSearch:
        """The request as the core's value."""
        return MomentSearch(
            tuple((kind, self.types[kind]) for kind in EmbeddingType if kind in self.types),
            self.top_k,
            self.min_similarity,
            self.mode,
            "" if self.mode == SearchMode.SEMANTIC else self.query,
            self.explain,
            self.filter,
            self.context,
        )


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
        description="By type, the segments that were found in it, best first."
    )
    context: MomentContext | None = Field(
        default=None, description="Only if asked for, and if the moment has times."
    )


class MomentsResponse(BaseModel):
    """Moments, best first."""

    query: str
    moments: list[FoundMoment]
    timestamp: Timestamp = Field(default_factory=now)
