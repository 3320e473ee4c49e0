"""A Celery task that stores transcript segments: `app.tasks.generate_embeddings`.

A worker has it once this module is among its imports:

    app = Celery("orchestrator", include=["deployments.client.celery_tasks"])

The service is the one at EMBEDDINGS_SERVICE_URL, with the key EMBEDDINGS_API_KEY.
"""

import logging
from typing import Any

from celery import shared_task

from deployments.client.sync_client import Client

logger = logging.getLogger(__name__)

TIMEOUT_S = 120.0
"""Of each request."""

_NAMES = ("media_item_id", "transcript_segments")


@shared_task(name="app.tasks.generate_embeddings")  # type: ignore[untyped-decorator]
def generate_embeddings(*arguments: Any, **named: Any) -> dict[str, Any]:
    """Store transcript segments of a media item.

    Takes `media_item_id` and `transcript_segments`, in this order or by name. In a chain, Celery
    puts the result of the step before in front: what it has of the two, as a dict or as a list of
    segments, is taken where nothing else gives it, and any other result is left out.

    Returns {"status": "success", "media_item_id", "embeddings_created"}, or {"status": "failed",
    "error"} with the reason: it never raises, so that a chain goes on. Many segments travel in
    several requests.
    """
    try:
        media_item_id, segments = _find(arguments, named)
        with Client(timeout_s=TIMEOUT_S) as client:
            # What the segments say of their media item doesn't count.
            rows = ({**segment, "media_item_id": media_item_id} for segment in segments)
            stored = client.store_many(rows, "transcript", in_flight=1)
    except Exception as error:
        logger.warning("Embeddings were not stored: %s", error)
        return {"status": "failed", "error": str(error)}
    return {
        "status": "success",
        "media_item_id": media_item_id,
        "embeddings_created": stored.embeddings_created,
    }


def _find(arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The media item and its segments from what a caller gave and a chain handed over."""
    unknown = named.keys() - set(_NAMES)
    if unknown:
        raise TypeError(f"generate_embeddings has no argument {sorted(unknown)[0]!r}")
    missing = [name for name in _NAMES if name not in named]
    positional = list(arguments)
    handed: dict[str, Any] = {}
    if positional and (len(positional) > len(missing) or isinstance(positional[0], dict | list)):
        previous = positional.pop(0)
        if isinstance(previous, dict):
            handed = {name: previous[name] for name in _NAMES if name in previous}
        elif isinstance(previous, list):
            handed = {"transcript_segments": previous}
    if len(positional) > len(missing):
        raise TypeError(
            f"generate_embeddings takes {' and '.join(_NAMES)}, and the result of the step before "
            f"it in a chain; it got {len(arguments)} arguments"
        )
    found = {**handed, **dict(zip(missing, positional, strict=False)), **named}
    for name in _NAMES:
        if found.get(name) is None:
            raise TypeError(
                f"generate_embeddings got no {name}, nor did the step before hand it on"
            )
    segments = found["transcript_segments"]
    if not isinstance(segments, list | tuple):
        raise TypeError(f"transcript_segments is {type(segments).__name__}, not a list of segments")
    return found["media_item_id"], list(segments)
