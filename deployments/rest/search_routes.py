"""The search routes: each parses, calls, and answers."""

from collections.abc import Sequence
from typing import Annotated, Protocol

from fastapi import APIRouter
from fastapi import Query as QueryParameter
from fastapi.responses import Response

from deployments.core.api.results import (
    Json,
    batch_response_json,
    search_response_json,
    similar_response_json,
)
from deployments.core.api.search_requests import (
    BatchRequest,
    SearchOptions,
    SearchRequest,
    SimilarRequest,
)
from deployments.core.api.search_schemas import BatchResponse, SearchResponse, SimilarResponse
from deployments.core.errors import (
    InvalidInput,
    NotFound,
)
from deployments.core.segments import EmbeddingType, Query, Search, SegmentName
from deployments.core.settings import Settings
from deployments.rest.limits import check_text, check_top_k
from deployments.rest.problems import BODY_PROBLEMS, READ_PROBLEMS, problem_responses
from deployments.rest.url_search import SearchByUrl

MOST_BATCH_SEGMENTS = 10_000

Kind = Annotated[EmbeddingType, QueryParameter(description="Which index to search.")]


class SearchBackend(Protocol):
    """What the routes call; every method raises the service's errors only."""

    async def search(self, query: Query) -> Json:
        """Find segments, or moments: what `answer_json` or `moments_json` gives."""
        ...

    async def search_all(self, queries: Sequence[Query]) -> list[Json]:
        """Carry out several searches: an answer for each, in order."""
        ...

    async def similar(self, name: SegmentName, search: Search) -> Json:
        """Find segments near to a stored one. Raises NotFound."""
        ...


def search_routes(backend: SearchBackend, settings: Settings) -> APIRouter:
    """The routes that search."""
    routes = APIRouter(tags=["search"])

    async def find(request: SearchRequest) -> Response:
        return _json(_response(request, await backend.search(_query(request, settings))))

    @routes.post(
        "/search",
        response_model=SearchResponse,
        responses=READ_PROBLEMS | BODY_PROBLEMS,
        summary="Search one index",
    )
    async def search(request: SearchRequest) -> Response:
        """The stored segments that answer to the query, best first.

        `mode` says by what they are ranked: `semantic` by their meaning, `keyword` by their words
        (BM25), `hybrid` by both. An `embedding` is compared instead of the query's. `similarity`
        and `distance` are exact in every mode, and `min_similarity` leaves out what is below it in
        every mode.
        """
        return await find(request)

    @routes.post(
        "/search/batch",
        response_model=BatchResponse,
        responses=READ_PROBLEMS | BODY_PROBLEMS,
        summary="Search several times",
    )
    async def search_batch(request: BatchRequest) -> Response:
        """As `POST /search` for each query: they are encoded together and see the same state.

        If one can't be carried out, none is.
        """
        queries = []
        for position, one in enumerate(request.queries):
            try:
                queries.append(_query(one, settings))
            except InvalidInput as error:
                raise InvalidInput(f"queries.{position}: {error.detail}") from None
        segments = sum(one.most_segments + (one.offset or 0) for one in request.queries)
        if segments > MOST_BATCH_SEGMENTS:
            raise InvalidInput(
                f"top_k · group_size · (1 + 2 · context) + offset of all queries is {segments}; at "
                f"most {MOST_BATCH_SEGMENTS} together"
            )
        answers = await backend.search_all(queries)
        return _json(
            batch_response_json(
                [
                    _response(one, answer)
                    for one, answer in zip(request.queries, answers, strict=True)
                ]
            )
        )

    @routes.post(
        "/search/similar",
        response_model=SimilarResponse,
        responses=READ_PROBLEMS | BODY_PROBLEMS | problem_responses(NotFound),
        summary="Search by a stored segment",
    )
    async def search_similar(request: SimilarRequest) -> Response:
        """The stored segments whose meaning is nearest to that of a stored one, without itself."""
        _check_size(request, settings)
        answer = await backend.similar(request.name(), request.search())
        return _json(similar_response_json(request.name(), answer))

    def add_search_route(path: str, embedding_type: EmbeddingType) -> None:
        @routes.get(
            path,
            response_model=SearchResponse,
            responses=READ_PROBLEMS,
            summary=f"Search {path.rsplit('/', 1)[1]}",
            name=f"search_{embedding_type}s",
        )
        async def search_type(request: SearchByUrl) -> Response:
            """As `POST /search`, by URL; of filters, `metadata.ticker=SPY` is one for a field."""
            return await find(request.model_copy(update={"embedding_type": embedding_type}))

    for embedding_type in EmbeddingType:
        add_search_route(f"/search/{embedding_type}s", embedding_type)

    @routes.get(
        "/embeddings/search",
        response_model=SearchResponse,
        responses=READ_PROBLEMS,
        summary="Search, under the main API's route",
    )
    async def embeddings_search(
        request: SearchByUrl, embedding_type: Kind = EmbeddingType.TRANSCRIPT
    ) -> Response:
        """As `POST /search`, under the route by which the pipeline's main API offers it."""
        return await find(request.model_copy(update={"embedding_type": embedding_type}))

    return routes


def _query(request: SearchRequest, settings: Settings) -> Query:
    """The request as the core's value. Raises InvalidInput."""
    check_text("query", request.query or "", settings)
    _check_size(request, settings)
    return request.question()


def _check_size(request: SearchOptions, settings: Settings) -> None:
    check_top_k(request.top_k, settings)
    most = settings.embeddings_max_top_k
    if request.most_segments > most:
        raise InvalidInput(
            f"top_k · group_size · (1 + 2 · context) is {request.most_segments}; at most {most}"
        )


def _response(request: SearchRequest, answer: Json) -> Json:
    return search_response_json(request.query, request.embedding_type, answer)


def _json(document: Json) -> Response:
    return Response(document, media_type="application/json")
