"""What an exported file says of itself before its segments."""

from dataclasses import asdict, dataclass
from typing import Any

from deployments.core.errors import InvalidInput, StoreMismatch
from deployments.core.segments import ModelIdentity

NAME = "embeddings-service-export"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Header:
    """The model of all vectors, and how many segments follow; None if that isn't said."""

    model: ModelIdentity
    segments: int | None

    def document(self) -> dict[str, Any]:
        """The header as JSON."""
        return {
            "format": NAME,
            "version": VERSION,
            "model": asdict(self.model),
            "segments": self.segments,
        }

    @classmethod
    def read(cls, document: Any) -> "Header":
        """The header from JSON. Raises InvalidInput, or StoreMismatch for a newer version."""
        if not isinstance(document, dict) or document.get("format") != NAME:
            raise InvalidInput("it was not exported by this service")
        version, model = document.get("version"), document.get("model")
        if not isinstance(version, int) or version > VERSION:
            raise StoreMismatch(
                f"it was exported by a newer version of this service (format {version}, this one "
                f"reads up to {VERSION})"
            )
        segments = document.get("segments")
        match model:
            case {"name": str(name), "fingerprint": str(fingerprint), "dimension": int(dimension)}:
                if dimension > 0 and (segments is None or isinstance(segments, int)):
                    return cls(ModelIdentity(name, fingerprint, dimension), segments)
        raise InvalidInput("its header doesn't say which model its vectors are of")
