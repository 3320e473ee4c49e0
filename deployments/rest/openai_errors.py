"""Errors in OpenAI's form."""

from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.core.api.schemas import Problem
from deployments.core.errors import InvalidInput, ServiceError
from deployments.rest.problems import MEDIA_TYPE, error_response
from deployments.rest.routes import route_path

PREFIX = "/v1"
"""Under which all routes have this form of errors."""


class UnknownModel(ServiceError):
    """The request names a model that this service doesn't serve."""

    status = 404
    code = "model_not_found"
    title = "Model not found"


class OpenAIError(BaseModel):
    """What is wrong."""

    message: str
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(examples=["input"])
    code: str | None = Field(examples=["empty_text"])


class OpenAIErrorResponse(BaseModel):
    """An error in OpenAI's form."""

    error: OpenAIError


class OpenAIErrors:
    """ASGI middleware: under /v1, problem documents become errors in OpenAI's form.

    Belongs outside of all that answers with problems.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, translating its answer."""
        if scope["type"] != "http" or not _is_under(PREFIX, route_path(scope)):
            await self._app(scope, receive, send)
            return
        started = False
        problem_headers: Headers | None = None

        async def translate(message: Message) -> None:
            nonlocal started, problem_headers
            if message["type"] == "http.response.start":
                started = True
                headers = Headers(raw=message["headers"])
                if headers.get("content-type") == MEDIA_TYPE:
                    problem_headers = headers
                    return
            elif problem_headers is not None:
                # Problems are small and come in one piece.
                problem = Problem.model_validate_json(message["body"])
                await _openai_error(problem, problem_headers, scope)(scope, receive, send)
                return
            await send(message)

        try:
            await self._app(scope, receive, translate)
        except Exception:
            # Starlette answers these outside of all middleware; its handler still logs them.
            if not started:
                unexpected = ServiceError("the service failed; its log has the reason")
                await error_response(unexpected)(scope, receive, translate)
            raise


def _is_under(prefix: str, path: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def _openai_error(problem: Problem, headers: Headers, scope: Scope) -> Response:
    status, message, code, param = problem.status, problem.detail, problem.code, None
    if problem.errors:
        first = problem.errors[0]
        code = first.code
        # "body.input.3" is about `input`, "body.17" about a character of what isn't JSON.
        field = [*first.location.split("."), ""][1]
        param = field if field.isidentifier() else None
    if code == UnknownModel.code:
        param = "model"
    if status == InvalidInput.status:
        status = HTTPStatus.BAD_REQUEST
    elif code == "not_found":
        message = (
            f"there is no {scope['method']} {route_path(scope)} here; of OpenAI's API, this "
            f"service has {PREFIX}/embeddings and {PREFIX}/models"
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = "rate_limit_error"
    else:
        kind = "invalid_request_error" if status < 500 else "server_error"
    error = OpenAIError(message=message, type=kind, param=param, code=code)
    kept = {name: headers[name] for name in headers if not name.startswith("content-")}
    return JSONResponse(OpenAIErrorResponse(error=error).model_dump(), status, kept)


def openai_error_responses(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of what a route may answer besides success."""
    titles: dict[int, list[str]] = {}
    for error in errors:
        status = HTTPStatus.BAD_REQUEST if error is InvalidInput else error.status
        titles.setdefault(int(status), []).append(error.title)
    described: dict[int | str, dict[str, Any]] = {
        status: {"description": ", or: ".join(kinds), "model": OpenAIErrorResponse}
        for status, kinds in titles.items()
    }
    return described | {"default": {"description": "Other error", "model": OpenAIErrorResponse}}
