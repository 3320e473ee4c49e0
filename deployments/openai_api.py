"""OpenAI's embeddings API for its clients: `/v1/embeddings` and `/v1/models`."""

import base64
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal, Protocol

import orjson
from fastapi import APIRouter, Path
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.core import fields
from deployments.core.api.schemas import Problem
from deployments.core.encoding.batcher import Encoded, Priority
from deployments.core.encoding.model_source import DEFAULT_ORGANISATION
from deployments.core.encoding.text_encoder import TextKind
from deployments.core.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    Overloaded,
    ServiceError,
)
from deployments.core.segments import ModelIdentity, Vectors
from deployments.core.settings import Settings
from deployments.problems import MEDIA_TYPE, error_response
from deployments.routes import route_path

PREFIX = "/v1"
MOST_TEXTS_OF_A_QUERY = 8
"""Longer lists are taken for bulk work, which queries overtake."""


class EmbeddingBackend(Protocol):
    """What the routes call; every method raises the service's errors only."""

    async def encode(
        self, texts: Sequence[str], kind: TextKind, priority: Priority, model: str
    ) -> Encoded:
        """Vectors and numbers of tokens of texts, by one of `models`."""
        ...

    async def models(self) -> Sequence[ModelIdentity]:
        """The models that encode."""
        ...


class UnknownModel(ServiceError):
    """The request names a model that this service doesn't serve."""

    status = 404
    code = "model_not_found"
    title = "Model not found"


def _texts(value: object) -> object:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise PydanticCustomError("input_type", "must be a string or a list of strings")
    if not value:
        raise PydanticCustomError("empty_list", "must have at least one string")
    if any(isinstance(item, int | list) for item in value):
        raise PydanticCustomError(
            "token_ids", "token ids aren't supported, since models differ in them; send strings"
        )
    return value


Texts = Annotated[
    list[fields.Text],
    BeforeValidator(_texts),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]


class EmbeddingsRequest(BaseModel):
    """Texts to embed. Nothing of them is stored."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "model": "all-MiniLM-L6-v2",
                    "input": ["RSI indicator measures momentum", "Support and resistance levels"],
                },
                {
                    "model": "all-MiniLM-L6-v2",
                    "input": "when is a stock overbought?",
                    "input_type": "query",
                    "encoding_format": "base64",
                },
            ]
        },
    )

    input: Texts = Field(description="One text or several; lists of token ids are refused.")
    model: str = Field(max_length=1024, description="The model that `GET /v1/models` names.")
    input_type: TextKind = Field(
        default="document", description="Models may put different prompts before the two."
    )
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="`base64` is that of little-endian float32."
    )
    dimensions: int | None = Field(
        default=None, description="The model's own number, if any: vectors aren't shortened."
    )
    user: str | None = Field(default=None, description="Accepted and not used.")


class Embedding(BaseModel):
    """One text's vector, of length 1 in the Euclidean norm."""

    object: Literal["embedding"] = "embedding"
    index: int = Field(description="Position in `input`, from 0.")
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens that were encoded: special tokens count, what the model's limit cut off doesn't."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """The vectors in the order of `input`."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Model(BaseModel):
    """A model that the service encodes with."""

    id: str = Field(examples=["all-MiniLM-L6-v2"])
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="Always 0: not known.")
    owned_by: Literal["embeddings-service"] = "embeddings-service"
    embedding_dimension: int = Field(examples=[384])
    fingerprint: str = Field(description="Equal for models whose vectors can be compared.")


class Models(BaseModel):
    """The models that the service encodes with: one, unless an index has its own."""

    object: Literal["list"] = "list"
    data: list[Model]


class OpenAIError(BaseModel):
    """What is wrong."""

    message: str
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(examples=["input"])
    code: str | None = Field(examples=["empty_text"])


class OpenAIErrorResponse(BaseModel):
    """An error in OpenAI's form."""

    error: OpenAIError


def openai_routes(backend: EmbeddingBackend, settings: Settings) -> APIRouter:
    """The routes under /v1. Their errors need the middleware OpenAIErrors."""
    routes = APIRouter(prefix=PREFIX, tags=["openai"])

    @routes.post(
        "/embeddings",
        response_model=EmbeddingsResponse,
        responses=_error_responses(
            InvalidInput, UnknownModel, BodyTooLarge, Overloaded, NotReady, DeadlineExceeded
        ),
        summary="Embed texts without storing them",
    )
    async def create_embeddings(request: EmbeddingsRequest) -> Response:
        """As OpenAI's route, for its clients; `input_type` is this service's own."""
        _check_limits(request.input, settings)
        model = _chosen(request.model, await backend.models())
        if request.dimensions not in (None, model.dimension):
            raise _wrong(
                "dimensions",
                f"is {request.dimensions}; {model.name} has {model.dimension}, which can't be "
                "changed",
            )
        bulk = len(request.input) > MOST_TEXTS_OF_A_QUERY
        encoded = await backend.encode(
            request.input,
            request.input_type,
            Priority.BULK if bulk else Priority.QUERY,
            model.name,
        )
        tokens = sum(encoded.tokens)
        return _json(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": index, "embedding": embedding}
                    for index, embedding in enumerate(
                        _base64(encoded.vectors)
                        if request.encoding_format == "base64"
                        else encoded.vectors
                    )
                ],
                "model": model.name,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )

    @routes.get(
        "/models", responses=_error_responses(NotReady, DeadlineExceeded), summary="List the models"
    )
    async def list_models() -> Models:
        """The models that this service encodes with: one, unless an index has its own."""
        return Models(data=[_model_document(each) for each in await backend.models()])

    @routes.get(
        "/models/{model:path}",
        responses=_error_responses(UnknownModel, NotReady, DeadlineExceeded),
        summary="Describe a model",
    )
    async def retrieve_model(
        model: Annotated[str, Path(description="Its name.", examples=["all-MiniLM-L6-v2"])],
    ) -> Model:
        """A model, by the name that `GET /v1/models` gives."""
        return _model_document(_chosen(model, await backend.models()))

    return routes


class OpenAIErrors:
    """ASGI middleware: under /v1, problem documents become errors in OpenAI's form.

    Belongs outside of all that answers with problems.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, translating its answer."""
        if scope["type"] != "http" or not route_path(scope).startswith(f"{PREFIX}/"):
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


def _error_responses(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
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


def _check_limits(texts: Sequence[str], settings: Settings) -> None:
    if len(texts) > settings.embeddings_max_segments:
        raise _wrong(
            "input",
            f"has {len(texts)} texts; at most {settings.embeddings_max_segments} "
            "(EMBEDDINGS_MAX_SEGMENTS) are allowed, split it into several requests",
        )
    for position, text in enumerate(texts):
        if len(text) > settings.embeddings_max_text_chars:
            raise _wrong(
                "input",
                f"text {position} has {len(text)} characters; at most "
                f"{settings.embeddings_max_text_chars} (EMBEDDINGS_MAX_TEXT_CHARS) are allowed",
            )


def _chosen(asked: str, served: Sequence[ModelIdentity]) -> ModelIdentity:
    organisation = f"{DEFAULT_ORGANISATION}/"
    for model in served:
        if asked.removeprefix(organisation) == model.name.removeprefix(organisation):
            return model
    names = " and ".join(repr(model.name) for model in served)
    raise UnknownModel(
        f"the model {asked!r} isn't served here; {names or 'none'} "
        f"{'are' if len(served) > 1 else 'is'}"
    )


def _wrong(field: str, message: str) -> RequestValidationError:
    """The same kind of error as a field's validation raises, so that its name isn't lost."""
    return RequestValidationError(
        [{"type": InvalidInput.code, "loc": ("body", field), "msg": message}]
    )


def _base64(vectors: Vectors) -> list[str]:
    return [base64.b64encode(row).decode() for row in vectors.astype("<f4", copy=False)]


def _json(document: dict[str, Any]) -> Response:
    # Writes float32 in as many digits as it has; as float64 they would be twice as long.
    content = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


def _model_document(model: ModelIdentity) -> Model:
    return Model(id=model.name, embedding_dimension=model.dimension, fingerprint=model.fingerprint)
