"""The client: the service from Python, the command line, and what plugs into other programs.

    from deployments.client import Client

    with Client() as client:
        for hit in client.search("when is a stock overbought?", top_k=3):
            print(f"{hit.similarity:.2f} {hit.text}")

Needs neither Ray nor torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from deployments.client.errors import (
    EmbeddingsError,
    FieldError,
    Forbidden,
    InvalidRequest,
    InvalidValue,
    NotFound,
    Overloaded,
    Refused,
    TimedOut,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)
from deployments.client.results import (
    Context,
    Deleted,
    Embeddings,
    Health,
    Hit,
    Hits,
    ListedSegment,
    MediaItem,
    Moment,
    Segment,
    Stats,
    Stored,
    StoredMany,
)

if TYPE_CHECKING:
    from deployments.client.async_client import AsyncClient
    from deployments.client.sync_client import Client
    from deployments.client.transport import Retries

__all__ = [
    "AsyncClient",
    "Client",
    "Context",
    "Deleted",
    "Embeddings",
    "EmbeddingsError",
    "FieldError",
    "Forbidden",
    "Health",
    "Hit",
    "Hits",
    "InvalidRequest",
    "InvalidValue",
    "ListedSegment",
    "MediaItem",
    "Moment",
    "NotFound",
    "Overloaded",
    "Refused",
    "Retries",
    "Segment",
    "Stats",
    "Stored",
    "StoredMany",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
]

# Those that need httpx, which the command line does without until it sends something.
_LATER = {"AsyncClient": "async_client", "Client": "sync_client", "Retries": "transport"}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
