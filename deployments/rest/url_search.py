"""The parameters that the search routes have in their URLs."""

from typing import Annotated, Literal

from fastapi import Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from deployments.core import fields
from deployments.core.api import filter_schema
from deployments.core.api.search_requests import SearchRequest
from deployments.core.filters import Filter
from deployments.core.segments import SearchMode

Question = Annotated[
    fields.Text, Query(description="What to look for.", examples=["when is a stock overbought?"])
]
TopK = Annotated[fields.TopK, Query(description="How many results at most.")]
MinSimilarity = Annotated[
    fields.Similarity, Query(description="Leave out results below this similarity, 0 to 1.")
]
Exact = Annotated[
    bool, Query(description="Compare with every vector, whatever the type of the index.")
]
Mode = Annotated[SearchMode, Query(description="Rank by meaning, by words (BM25), or by both.")]
Explain = Annotated[bool, Query(description="Say why each result is where it is.")]
GroupBy = Annotated[
    Literal["media_item_id"] | None,
    Query(description="Let each result be of another media item."),
]
GroupSize = Annotated[fields.GroupSize, Query(description="How many hits of a media item to give.")]
Deduplicate = Annotated[
    fields.Duplicates,
    Query(
        description="Leave out results with this cosine, or a higher one, to a better one; `true` "
        "stands for 0.95."
    ),
]
Context = Annotated[
    fields.Context, Query(description="How many segments before and after each result to give.")
]
Highlight = Annotated[bool, Query(description="Tell where each result has words of the query.")]
Offset = Annotated[
    fields.Offset | None, Query(description="Leave out so many of the best results.")
]
Cursor = Annotated[str | None, Query(description="`*`, then the `next_cursor` of the page before.")]
MediaItemIds = Annotated[
    list[str] | None,
    Query(
        alias="media_item_id",
        description="Only of this media item; may come again with another.",
        examples=[["101"]],
    ),
]
From = Annotated[
    fields.Seconds | None, Query(alias="from", description="Only segments that end then or later.")
]
To = Annotated[
    fields.Seconds | None, Query(alias="to", description="Only segments that begin then or sooner.")
]


async def _filter_by_url(
    request: Request, media_item_id: MediaItemIds = None, start: From = None, end: To = None
) -> Filter | None:
    """The filter, with what can't be declared: any name that begins with `metadata.`."""
    try:
        return filter_schema.of_url(
            media_item_id or (), start, end, request.query_params.multi_items()
        )
    except PydanticCustomError as error:
        found = {"type": error.type, "loc": ("query", "filter"), "msg": error.message()}
        raise RequestValidationError([found]) from None


async def _search_by_url(
    wanted: Annotated[Filter | None, Depends(_filter_by_url)],
    query: Question,
    top_k: TopK = 10,
    min_similarity: MinSimilarity = 0.0,
    exact: Exact = False,
    mode: Mode = SearchMode.SEMANTIC,
    explain: Explain = False,
    group_by: GroupBy = None,
    group_size: GroupSize = 1,
    deduplicate: Deduplicate = False,
    context: Context = 0,
    highlight: Highlight = False,
    offset: Offset = None,
    cursor: Cursor = None,
) -> SearchRequest:
    try:
        return SearchRequest(
            query=query,
            top_k=top_k,
            min_similarity=min_similarity,
            exact=exact,
            mode=mode,
            explain=explain,
            filter=wanted,
            group_by=group_by,
            group_size=group_size,
            deduplicate=deduplicate,
            context=context,
            highlight=highlight,
            offset=offset,
            cursor=cursor,
        )
    except ValidationError as error:
        found = [{**each, "loc": ("query", *each["loc"])} for each in error.errors()]
        raise RequestValidationError(found) from None


SearchByUrl = Annotated[SearchRequest, Depends(_search_by_url)]
"""What the search routes have in common in their query."""
