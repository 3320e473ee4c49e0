"""Errors as HTTP: RFC 9457 problem documents, made in this one place."""

import json
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from deployments.core.api.schemas import Problem, field_problems
from deployments.core.errors import (
    BodyTooLarge,
    BodyTooSlow,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    ModelNotFound,
    NotFound,
    NotReady,
    Overloaded,
    ServiceError,
    StoreDamaged,
    StoreFull,
    StoreUnwritable,
    Unauthorized,
    UnreadableBody,
)
from deployments.rest.routes import route_template

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
CHALLENGE = 'Bearer realm="embeddings-service"'
MAX_PROBLEMS = 20

TYPICAL_DETAILS: dict[type[ServiceError], str] = {
    UnreadableBody: "the body can't be read as JSON in UTF-8",
    Unauthorized: "the API key isn't one of this service's",
    Forbidden: "the API key is for reading only; this needs an EMBEDDINGS_API_KEY",
    NotFound: "there is no media item 113",
    Conflict: "the migration is running, not ready",
    InvalidInput: "body.query: must contain more than white space",
    BodyTooSlow: "only 2048 bytes of the body have come, which is less than 16384 a second after "
    "the first 20 s; send it again, faster, or in smaller requests",
    BodyTooLarge: "the body has more than 33554432 bytes; send fewer segments a request, or raise "
    "EMBEDDINGS_MAX_BODY_BYTES",
    Overloaded: "512 requests are waiting already; try again later",
    NotReady: "the index isn't available; `serve status` tells why",
    DeadlineExceeded: "the index didn't answer within 60 s; `serve status` tells whether it runs",
    ModelNotFound: "The model 'all-MiniLM-L12' was found in none of three places",
    StoreUnwritable: "Cannot store segments: attempt to write a readonly database. Check its "
    "permissions, mount options and disk (dmesg).",
    StoreDamaged: "Cannot search: the store is damaged: row 17 isn't what was written. "
    "`embeddings-service verify` lists what is damaged.",
    StoreFull: "Cannot store segments: no space left. Free space on its disk; writes work again "
    "without a restart.",
}
"""Of examples in the OpenAPI document."""


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The problem as a response with its own status and media type."""
    document = json.dumps(problem.model_dump(exclude_none=True), ensure_ascii=False)
    # Names of fields come from the request, and may have halves of surrogate pairs.
    return Response(document.encode("utf-8", "replace"), problem.status, headers, MEDIA_TYPE)


def error_response(error: ServiceError) -> Response:
    """The response for one of the service's errors."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = CHALLENGE
    return problem_response(_problem(error), headers)


def _problem(error: ServiceError) -> Problem:
    return Problem(title=error.title, status=error.status, detail=error.detail, code=error.code)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error, expected or not, with a problem document."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected_error)


def problem_responses(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of what a route may answer besides success."""
    kinds: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        if error.status in kinds:
            kinds[error.status]["description"] += f", or: {error.title}"
        else:
            content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
            kinds[error.status] = {"description": error.title, "content": {MEDIA_TYPE: content}}
        example = _problem(error(TYPICAL_DETAILS[error])).model_dump(exclude_none=True)
        kinds[error.status]["content"][MEDIA_TYPE]["examples"][error.code] = {"value": example}
    return kinds


READ_PROBLEMS = problem_responses(
    InvalidInput, Overloaded, NotReady, DeadlineExceeded, StoreDamaged
)
WRITE_PROBLEMS = READ_PROBLEMS | problem_responses(
    NotReady, StoreUnwritable, StoreDamaged, StoreFull
)
BODY_PROBLEMS = problem_responses(UnreadableBody, BodyTooSlow, BodyTooLarge)
"""In addition, where a request has a body."""


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s %s failed: %s", request.method, route_template(request.scope), error)
    return error_response(error)


async def _validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = list(field_problems(error.errors()))
    shown = [f"{problem.location}: {problem.message}" for problem in problems[:3]]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    return problem_response(
        Problem(
            title=InvalidInput.title,
            status=InvalidInput.status,
            detail="; ".join(shown),
            code=InvalidInput.code,
            errors=problems[:MAX_PROBLEMS],
        )
    )


async def _http_error(_: Request, error: Exception) -> Response:
    """What the framework answers itself: unknown routes, wrong methods, unreadable bodies."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    if status == HTTPStatus.BAD_REQUEST:
        return error_response(UnreadableBody("the body can't be read as JSON in UTF-8"))
    return problem_response(
        Problem(
            title=status.phrase,
            status=status,
            detail=str(error.detail),
            code=status.name.lower(),
        ),
        dict(error.headers) if error.headers else None,
    )


async def _unexpected_error(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, route_template(request.scope), exc_info=error)
    return error_response(ServiceError("the service failed; its log has the reason"))
