"""The guide's routes."""

from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from deployments.rest.guide.pages import INDEX, Guide
from deployments.rest.static_files import METHODS


def guide_routes() -> APIRouter:
    """`/guide`, and its pages and pictures under it."""
    guide = Guide()
    routes = APIRouter(prefix="/guide", include_in_schema=False)

    def answer(request: Request, name: str) -> Response:
        file = guide.file(name)
        if file is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"the guide has no page {name!r}")
        return file.answer(request)

    @routes.api_route("", methods=METHODS)
    def contents(request: Request) -> Response:
        return answer(request, INDEX)

    @routes.api_route("/{name}", methods=METHODS)
    def page(request: Request, name: str) -> Response:
        return answer(request, name)

    return routes
