"""The search page: static files, the same for everybody."""

import html
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from deployments.core.configured_models import is_external
from deployments.core.settings import Settings
from deployments.rest.static_files import MEDIA_TYPES, METHODS, File

FOLDER = Path(__file__).parents[1] / "web"
PAGE = "page.html"
TEMPLATE_PLACE = "MEDIA_URL_TEMPLATE"
TYPES_PLACE = "SEARCHABLE_TYPES"


def page_routes(settings: Settings) -> APIRouter:
    """`/`, and what it is made of under `/web`."""
    files = _read(settings)
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/", methods=METHODS)
    async def page(request: Request) -> Response:
        return files[PAGE].answer(request)

    @routes.api_route("/web/{name}", methods=METHODS)
    async def file(request: Request, name: str) -> Response:
        if name not in files:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"the search page has no file {name!r}")
        return files[name].answer(request)

    return routes


def _read(settings: Settings) -> dict[str, File]:
    # The page has a text to search by, which needs a model here.
    types = [kind.value for kind, name in settings.models().items() if not is_external(name)]
    places = {TEMPLATE_PLACE: settings.media_url_template or "", TYPES_PLACE: " ".join(types)}
    files = {}
    for path in FOLDER.iterdir():
        if path.suffix not in MEDIA_TYPES:
            continue
        body = path.read_bytes()
        if path.name == PAGE:
            for place, value in places.items():
                body = body.replace(place.encode(), html.escape(value).encode())
        files[path.name] = File.of(body, path.suffix)
    return files
