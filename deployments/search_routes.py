"""The search routes: each parses, calls, and answers."""

from typing import Protocol

from fastapi import APIRouter
from fastapi.responses import Response

from deployments.core.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    Overloaded,
    StoreDamaged,
    UnreadableBody,
)
from deployments.core.results import Json, search_response_json
from deployments.core.search_schemas import SearchRequest, SearchResponse
from deployments.core.segments import EmbeddingType, Query
from deployments.core.settings import Settings
from deployments.limits import check_text
from deployments.problems import problem_responses
from deployments.url_search import SearchByUrl

READ = problem_responses(InvalidInput, Overloaded, NotReady, DeadlineExceeded, StoreDamaged)
BODY = problem_responses(UnreadableBody, BodyTooLarge)


class SearchBackend(Protocol):
    """What the routes call; every method raises the service's errors only."""

    async def search(self, query: Query) -> Json:
        """Find segments, or moments: what `answer_json` or `moments_json` gives."""
        ...


def search_routes(backend: SearchBackend, settings: Settings) -> APIRouter:
    """The routes that search."""
    routes = APIRouter(tags=["search"])

    async def find(request: SearchRequest) -> Response:
        query = request.query
        check_text("query", query, settings)
        if request.top_k > settings.embeddings_max_top_k:
            raise InvalidInput(f"top_k is {request.top_k}; at most {settings.embeddings_max_top_k}")
        hits = request.top_k * request.group_size
        if hits > settings.embeddings_max_top_k:
            raise InvalidInput(
                f"top_k · group_size is {hits}; at most {settings.embeddings_max_top_k}"
            )
        answer = await backend.search(Query(query, request.search()))
        return Response(
            search_response_json(query, request.embedding_type, answer),
            media_type="application/json",
        )

    @routes.post(
        "/search",
        response_model=SearchResponse,
        responses=READ | BODY,
        summary="Search one index",
    )
    async def search(request: SearchRequest) -> Response:
        """The stored segments that answer to the query, best first.

        `mode` says by what they are ranked: `semantic` by their meaning, `keyword` by their words
        (BM25), `hybrid` by both. `similarity` and `distance` are exact in every mode, and
        `min_similarity` leaves out what is below it in every mode.
        """
        return await find(request)

    def add_search_route(path: str, embedding_type: EmbeddingType) -> None:
        @routes.get(
            path,
            response_model=SearchResponse,
            responses=READ,
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
        responses=READ,
        summary="Search, under the main API's route",
    )
    async def embeddings_search(
        request: SearchByUrl, embedding_type: EmbeddingType = EmbeddingType.TRANSCRIPT
    ) -> Response:
        """As `POST /search`, under the route by which the pipeline's main API offers it."""
        return await find(request.model_copy(update={"embedding_type": embedding_type}))

    return routes
