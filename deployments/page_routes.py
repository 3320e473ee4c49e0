"""The search page: static files, the same for everybody, out of memory."""

import hashlib
import html
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from deployments.core.settings import Settings

FOLDER = Path(__file__).with_name("web")
PAGE = "page.html"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
MEDIA_TYPES |= {".svg": "image/svg+xml"}
TEMPLATE_PLACE = "MEDIA_URL_TEMPLATE"
METHODS = ["GET", "HEAD"]


@dataclass(frozen=True, slots=True)
class File:
    """What is served under one name, and a tag that changes with it."""

    body: bytes
    media_type: str
    tag: str


def page_routes(settings: Settings) -> APIRouter:
    """`/`, and what it is made of under `/web`.

    A browser asks each time whether its copy is still good, so that a new version is seen at once.
    """
    files = _read(settings.media_url_template)
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/", methods=METHODS)
    async def page(request: Request) -> Response:
        return _answer(request, files[PAGE])

    @routes.api_route("/web/{name}", methods=METHODS)
    async def file(request: Request, name: str) -> Response:
        if name not in files:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"the search page has no file {name!r}")
        return _answer(request, files[name])

    return routes


def _read(media_url_template: str | None) -> dict[str, File]:
    files = {}
    for path in FOLDER.iterdir():
        if path.suffix not in MEDIA_TYPES:
            continue
        body = path.read_bytes()
        if path.name == PAGE:
            body = body.replace(
                TEMPLATE_PLACE.encode(), html.escape(media_url_template or "").encode()
            )
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        files[path.name] = File(body, MEDIA_TYPES[path.suffix], tag)
    return files


def _answer(request: Request, file: File) -> Response:
    headers = {"Cache-Control": "no-cache", "ETag": file.tag}
    if file.tag in request.headers.get("If-None-Match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(file.body, headers=headers, media_type=file.media_type)
