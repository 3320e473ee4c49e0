"""The route that searches for moments."""

from fastapi import APIRouter
from fastapi.responses import Response

from deployments.core.api.moment_results import moments_response_json
from deployments.core.api.moment_schemas import MomentRequest, MomentsResponse
from deployments.core.configured_models import is_external
from deployments.core.settings import Settings
from deployments.rest.limits import check_text, check_top_k
from deployments.rest.problems import BODY_PROBLEMS, READ_PROBLEMS
from deployments.rest.search_routes import SearchBackend


def moment_routes(backend: SearchBackend, settings: Settings) -> APIRouter:
    """The routes that find moments."""
    routes = APIRouter(tags=["search"])
    external = {kind for kind, name in settings.models().items() if is_external(name)}

    @routes.post(
        "/search/moments",
        response_model=MomentsResponse,
        responses=READ_PROBLEMS | BODY_PROBLEMS,
        summary="Find moments in all indices",
    )
    async def moments(request: MomentRequest) -> Response:
        """The stretches of media items that answer to the query, best first.

        Segments that nearly touch and match almost as well are one moment, and so is what is
        said and shown at the same time; no two moments of a media item nearly touch. Segments
        without times are one moment of their media item, which has none either.
        """
        check_text("query", request.query or "", settings)
        check_top_k(request.top_k, settings)
        answer = await backend.search(request.question(external))
        return Response(moments_response_json(request.query, answer), media_type="application/json")

    return routes
