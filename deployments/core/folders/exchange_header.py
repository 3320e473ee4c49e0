"""What an exported file says of itself before its segments.

Version 1 names one model for all types, as `model`; version 2 one for each, as `models`.
"""

from dataclasses import asdict, dataclass
from typing import Any

from deployments.core.errors import InvalidInput, StoreMismatch
from deployments.core.segments import EmbeddingType, ModelIdentity, Models, models_by_type

NAME = "embeddings-service-export"
VERSION = 2


@dataclass(frozen=True, slots=True)
class Header:
    """The model of each type's vectors, and how many segments follow; None if that isn't said."""

    models: Models
    segments: int | None

    def document(self) -> dict[str, Any]:
        """The header as JSON."""
        return {
            "format": NAME,
            "version": VERSION,
            "models": {kind.value: asdict(self.models[kind]) for kind in EmbeddingType},
            "segments": self.segments,
        }

    @classmethod
    def read(cls, document: Any) -> "Header":
        """The header from JSON. Raises InvalidInput, or StoreMismatch for a newer version."""
        if not isinstance(document, dict) or document.get("format") != NAME:
            raise InvalidInput("it was not exported by this service")
        version = document.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise StoreMismatch(
                f"it was exported by a newer version of this service (format {version}, this one "
                f"reads up to {VERSION})"
            )
        segments = document.get("segments")
        if segments is None or isinstance(segments, int):
            if version == 1:
                return cls(models_by_type(_model(document.get("model"))), segments)
            if isinstance(models := document.get("models"), dict):
                return cls({kind: _model(models.get(kind)) for kind in EmbeddingType}, segments)
        raise InvalidInput(_NO_MODEL)


_NO_MODEL = "its header doesn't say which model its vectors are of"


def _model(document: Any) -> ModelIdentity:
    match document:
        case {"name": str(name), "fingerprint": str(fingerprint), "dimension": int(dimension)}:
            if dimension > 0:
                return ModelIdentity(name, fingerprint, dimension)
    raise InvalidInput(_NO_MODEL)
