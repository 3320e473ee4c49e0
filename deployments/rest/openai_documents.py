"""Requests and answers of OpenAI's embeddings API."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from deployments.core import fields
from deployments.core.encoding.text_encoder import TextKind


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
    encoding_format: Literal["float", "base64"] | None = Field(
        default="float",
        description="`base64` is that of little-endian float32; null is as without it.",
    )
    dimensions: int | None = Field(
        default=None, description="The model's own number, if any: vectors aren't shortened."
    )
    user: Any = Field(default=None, description="Accepted and not used.")


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
