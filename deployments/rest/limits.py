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


def check_top_k(top_k: int, settings: Settings) -> None:
    """Refuse to look for too many results. Raises InvalidInput."""
    if top_k > settings.embeddings_max_top_k:
        raise InvalidInput(
            f"top_k is {top_k}; at most {settings.embeddings_max_top_k} (EMBEDDINGS_MAX_TOP_K)"
        )
