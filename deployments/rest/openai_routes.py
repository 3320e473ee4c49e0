"""OpenAI's embeddings API for its clients: `/v1/embeddings` and `/v1/models`."""

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Protocol

import orjson
from fastapi import APIRouter, Path
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response

from deployments.core.encoding.batcher import Encoded, Priority
from deployments.core.encoding.model_source import DEFAULT_ORGANISATION
from deployments.core.encoding.text_encoder import TextKind
from deployments.core.errors import (
    BodyTooLarge,
    BodyTooSlow,
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    Overloaded,
)
from deployments.core.segments import ModelIdentity, Vectors
from deployments.core.settings import Settings
from deployments.rest.openai_documents import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    Model,
    Models,
)
from deployments.rest.openai_errors import PREFIX, UnknownModel, openai_error_responses

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


def openai_routes(backend: EmbeddingBackend, settings: Settings) -> APIRouter:
    """The routes under /v1. Their errors need the middleware OpenAIErrors."""
    routes = APIRouter(prefix=PREFIX, tags=["openai"])

    @routes.post(
        "/embeddings",
        response_model=EmbeddingsResponse,
        responses=openai_error_responses(
            InvalidInput,
            UnknownModel,
            BodyTooSlow,
            BodyTooLarge,
            Overloaded,
            NotReady,
            DeadlineExceeded,
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
        "/models",
        responses=openai_error_responses(NotReady, DeadlineExceeded),
        summary="List the models",
    )
    async def list_models() -> Models:
        """The models that this service encodes with: one, unless an index has its own."""
        return Models(data=[_model_document(each) for each in await backend.models()])

    @routes.get(
        "/models/{model:path}",
        responses=openai_error_responses(UnknownModel, NotReady, DeadlineExceeded),
        summary="Describe a model",
    )
    async def retrieve_model(
        model: Annotated[str, Path(description="Its name.", examples=["all-MiniLM-L6-v2"])],
    ) -> Model:
        """A model, by the name that `GET /v1/models` gives."""
        return _model_document(_chosen(model, await backend.models()))

    return routes


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
