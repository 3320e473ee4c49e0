"""Limits of requests that the settings set."""

from deployments.core.errors import InvalidInput
from deployments.core.settings import Settings


def check_text(what: str, text: str, settings: Settings) -> None:
    """Refuse a text that is too long; `what` begins the message. Raises InvalidInput."""
    if len(text) > settings.embeddings_max_text_chars:
        raise InvalidInput(
            f"{what} has {len(text)} characters; at most {settings.embeddings_max_text_chars} "
            "(EMBEDDINGS_MAX_TEXT_CHARS) are allowed"
        )
