"""All settings: from `args` in the config file, else the environment, else the defaults here.

A setting has one name everywhere: `embedding_model` in the config file is EMBEDDING_MODEL in the
environment. An unknown or invalid one stops the start.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from deployments.core.api_keys import ApiKeys, split_keys
from deployments.core.configured_models import external_identity, is_external
from deployments.core.errors import SettingsError
from deployments.core.media_url import check_template
from deployments.core.segments import EmbeddingType, IndexType

PREFIXES = ("EMBEDDING_", "EMBEDDINGS_", "FAISS_", "MEDIA_URL_TEMPLATE")
"""Environment variables that begin so are taken for settings of this service."""

FOREIGN_PREFIXES = ("EMBEDDINGS_SERVICE_",)
"""Not settings: the clients' EMBEDDINGS_SERVICE_URL, and what Kubernetes sets in every container
for a Service called `embeddings-service` (EMBEDDINGS_SERVICE_PORT=tcp://… and more)."""

SECRETS = ("embeddings_api_key", "embeddings_read_only_api_key")
"""From the environment only: the dashboard shows what is in the config file."""


def _absolute(path: object) -> object:
    if isinstance(path, str | Path) and str(path).strip():
        return Path(path).expanduser().absolute()
    return path


def _check_model(name: str) -> str:
    if is_external(name):
        try:
            external_identity(name)
        except SettingsError as error:
            raise PydanticCustomError("model", "{detail}", {"detail": error.detail}) from None
    return name


ModelName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=1024),
    AfterValidator(_check_model),
]
ResourceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,62}$")]
Folder = Annotated[Path, BeforeValidator(_absolute)]


def _check_keys(keys: SecretStr) -> SecretStr:
    split_keys(keys.get_secret_value())
    return keys


Keys = Annotated[SecretStr, AfterValidator(_check_keys)]


def _unless_there_is_a_key(value: object, info: ValidationInfo) -> object:
    if value == "auto":
        return not any(info.data.get(name) for name in SECRETS)
    return value


Anonymous = Annotated[
    bool,
    BeforeValidator(_unless_there_is_a_key),
    WithJsonSchema({"enum": [0, 1, "auto"]}),
]


class Settings(BaseSettings):
    """The service's settings, validated; the guide's page of settings tells what each one does."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_ignore_empty=True,
        validate_default=True,
        hide_input_in_errors=True,
    )

    embedding_model: ModelName = "all-MiniLM-L6-v2"
    embedding_model_transcript: ModelName | None = None
    embedding_model_frame: ModelName | None = None
    embedding_model_clip: ModelName | None = None
    embedding_device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    embedding_backend: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    embedding_precision: Literal["float32", "int8"] = "float32"
    faiss_index_dir: Folder = Field(default=Path("data/processed/faiss"))
    faiss_index_resource: ResourceName | None = None
    faiss_index_type: IndexType = IndexType.AUTO
    faiss_index_type_transcript: IndexType | None = None
    faiss_index_type_frame: IndexType | None = None
    faiss_index_type_clip: IndexType | None = None

    embeddings_workers: int = Field(default=1, ge=1, le=1024)
    embeddings_gpu_workers: int = Field(default=0, ge=0, le=1024)
    embeddings_ingress_workers: int = Field(default=1, ge=1, le=1024)
    embeddings_scale_down_s: float = Field(default=60.0, ge=1, le=86_400, allow_inf_nan=False)
    embeddings_encoder_cpus: float = Field(default=0.5, ge=0.001, le=1024, allow_inf_nan=False)
    embeddings_encoder_threads: int = Field(default=0, ge=0, le=1024)
    embeddings_batch_tokens: int = Field(default=512, ge=64, le=1_048_576)
    embeddings_query_cache: int = Field(default=10_000, ge=0, le=10_000_000)
    embeddings_queued_tokens: int = Field(default=2_000_000, ge=1024)
    embeddings_cache_dir: Folder = Field(default=Path("~/.cache/embeddings-service"))

    embeddings_image_root: Folder | None = None
    embeddings_max_image_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    embeddings_max_image_pixels: int = Field(default=25_000_000, ge=1024)

    embeddings_check_interval_s: float = Field(default=86_400.0, ge=0, allow_inf_nan=False)
    embeddings_salvage: bool = False

    embeddings_max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    embeddings_max_held_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    embeddings_max_segments: int = Field(default=2000, ge=1, le=100_000)
    embeddings_max_text_chars: int = Field(default=20_000, ge=1)
    embeddings_max_top_k: int = Field(default=1000, ge=1, le=100_000)
    embeddings_max_queued_searches: int = Field(default=512, ge=1)
    embeddings_timeout_s: float = Field(default=60.0, gt=0, le=3600, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_gpu_workers(self) -> Self:
        if self.embeddings_gpu_workers and self.embedding_device != "auto":
            raise PydanticCustomError(
                "gpu_workers",
                "EMBEDDINGS_GPU_WORKERS adds encoders on GPUs to those on CPUs, and "
                "EMBEDDING_DEVICE puts all of them on one kind; leave one of them out",
            )
        return self

    embeddings_api_key: Keys | None = None
    embeddings_read_only_api_key: Keys | None = None
    # Below the keys: "auto" depends on them.
    embeddings_allow_anonymous: Anonymous = False

    media_url_template: Annotated[str, AfterValidator(check_template)] | None = None

    @model_validator(mode="after")
    def _check_access(self) -> Self:
        full, read_only = (_split(getattr(self, name)) for name in SECRETS)
        if set(full) & set(read_only):
            raise PydanticCustomError(
                "api_key",
                "EMBEDDINGS_API_KEY and EMBEDDINGS_READ_ONLY_API_KEY have a key in common; what "
                "its holder may do would be unclear",
            )
        if self.embeddings_allow_anonymous and (full or read_only):
            raise PydanticCustomError(
                "api_key",
                "EMBEDDINGS_ALLOW_ANONYMOUS lets everybody in, and a key is set; remove one of "
                "them",
            )
        return self

    def api_keys(self) -> ApiKeys | None:
        """Whoever may do what; None if no key is set."""
        full, read_only = (_split(getattr(self, name)) for name in SECRETS)
        return ApiKeys(full, read_only) if full or read_only else None

    def client_key(self) -> str | None:
        """The key for this service's own calls over HTTP, one that may write if there is any."""
        keys = [key for name in SECRETS for key in _split(getattr(self, name))]
        return keys[0] if keys else None

    def models(self) -> dict[EmbeddingType, str]:
        """The name of each index' model: its own setting, else the common one."""
        return {
            kind: getattr(self, f"embedding_model_{kind.value}") or self.embedding_model
            for kind in EmbeddingType
        }

    def index_types(self) -> dict[EmbeddingType, IndexType]:
        """The type of each index: its own setting, else the common one."""
        return {
            kind: getattr(self, f"faiss_index_type_{kind.value}") or self.faiss_index_type
            for kind in EmbeddingType
        }

    @classmethod
    def load(cls, args: Mapping[str, Any] | None = None) -> Self:
        """Settings from the config file's `args` over this process' environment.

        Raises SettingsError that names each setting that is unknown or invalid, where it comes
        from, its value, and what is allowed.
        """
        given = dict(args or {})
        problems = [_unknown(name, "args") for name in given if name not in cls.model_fields]
        problems += [
            _unknown(name, "the environment")
            for name in sorted(os.environ)
            if name.startswith(PREFIXES)
            and not name.startswith(FOREIGN_PREFIXES)
            and name.lower() not in cls.model_fields
        ]
        problems += [
            f"  {name} (from args) belongs in the environment, as {name.upper()}: the dashboard "
            "shows what is in the config file"
            for name in SECRETS
            if name in given
        ]
        known = {
            name: value
            for name, value in given.items()
            if name in cls.model_fields and name not in SECRETS
        }
        try:
            settings = cls(**known)
        except ValidationError as error:
            problems += [
                _invalid(problem["loc"], problem["msg"], known) for problem in error.errors()
            ]
        if problems:
            raise SettingsError("\n".join(["The settings can't be used:", *problems]))
        return settings


def _unknown(name: str, source: str) -> str:
    names = list(Settings.model_fields)
    shown = [known.upper() for known in names] if source == "the environment" else names
    close = difflib.get_close_matches(name.lower(), names, n=1)
    hint = (
        f"did you mean {shown[names.index(close[0])]}?" if close else f"known: {', '.join(shown)}"
    )
    return f"  {name} (from {source}) is not a setting; {hint}"


def _split(keys: SecretStr | None) -> tuple[str, ...]:
    return () if keys is None else split_keys(keys.get_secret_value())


def _invalid(location: tuple[int | str, ...], message: str, args: Mapping[str, Any]) -> str:
    if not location:
        return f"  {message}"
    name = str(location[0])
    if name in SECRETS:
        return f"  {name.upper()} (from the environment): {message}"
    source, shown, value = "args", name, args.get(name)
    if name not in args:
        source, shown = "the environment", name.upper()
        value = next((os.environ[key] for key in os.environ if key.lower() == name), None)
    return f"  {shown}={value!r} (from {source}): {message[0].lower()}{message[1:]}"
