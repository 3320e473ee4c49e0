"""Who may do what: API keys, or only this machine where there are none."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.core.api_keys import Grant
from deployments.core.errors import Forbidden, ServiceError, Unauthorized
from deployments.core.exposure import ANYBODY, host_of, is_loopback
from deployments.core.settings import Settings
from deployments.rest.problems import CHALLENGE, error_response, problem_responses
from deployments.rest.routes import route_path

OPEN_ROUTES = frozenset({"/", "/guide", "/docs", "/openapi.json", "/health/live", "/health/ready"})
"""For browsers and probes, which can't send a key: they tell nothing of what is stored."""

OPEN_FILES = ("/web/", "/guide/")
"""What the search page and the guide are made of."""

READING_POSTS = frozenset(
    {"/search", "/search/batch", "/search/moments", "/search/similar", "/v1/embeddings"}
)
READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_TRUSTED = "embeddings.trusted"


class Access:
    """ASGI middleware: refuses what a request has no right to, before its body is read.

    Belongs outside of all that reads bodies, and inside of what translates problems.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._keys = settings.api_keys()
        self._anybody = settings.embeddings_allow_anonymous

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        scope[_TRUSTED] = refusal is None
        if refusal is None or _is_open(scope):
            await self._app(scope, receive, send)
        else:
            await error_response(refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ServiceError | None:
        if self._anybody:
            return None
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        if self._keys is None:
            return _not_from_here(headers)
        presented = _presented_keys(headers)
        if len(presented) != 1:
            return Unauthorized(
                f"the request has {len(presented)} API keys; send one, as `Authorization: Bearer "
                "KEY` or as `X-API-Key: KEY`"
            )
        grant = self._keys.grant(presented[0])
        if grant is None:
            return Unauthorized("the API key isn't one of this service's")
        if grant < _needed(scope):
            return Forbidden("the API key is for reading only; this needs an EMBEDDINGS_API_KEY")
        return None


def is_trusted(scope: Scope) -> bool:
    """Whether a request that was let in may also see details."""
    trusted: bool = scope[_TRUSTED]
    return trusted


def describe_access(document: dict[str, Any]) -> None:
    """Put the keys, and the answers without a good one, into an OpenAPI document."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    refusals = {str(k): v for k, v in problem_responses(Unauthorized, Forbidden).items()}
    refusals["401"]["headers"] = {
        "WWW-Authenticate": {"schema": {"type": "string", "const": CHALLENGE}}
    }
    for path, operations in document["paths"].items():
        if path in OPEN_ROUTES:
            continue
        for operation in operations.values():
            operation["security"] = [{"bearer": []}, {"key": []}, {}]
            if "default" not in operation["responses"]:
                operation["responses"] |= refusals


def _is_open(scope: Scope) -> bool:
    path = route_path(scope)
    is_open = path in OPEN_ROUTES or path.startswith(OPEN_FILES)
    return is_open and scope["method"] in ("GET", "HEAD")


def _needed(scope: Scope) -> Grant:
    """What isn't known to read counts as writing."""
    if scope["method"] in READING_METHODS:
        return Grant.READ
    if scope["method"] == "POST" and route_path(scope) in READING_POSTS:
        return Grant.READ
    return Grant.WRITE


def _presented_keys(headers: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    keys = []
    for name, value in headers:
        if name == b"x-api-key":
            keys.append(value.strip())
        elif name == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                keys.append(key.strip())
    return keys


def _origin_host(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


def _not_from_here(headers: Sequence[tuple[bytes, bytes]]) -> Forbidden | None:
    """Why a request to a loopback address isn't by this machine's own user.

    It may come through a proxy or a tunnel, or from a web page of somebody else in this machine's
    browser, under a name that leads here (DNS rebinding) or from another origin.
    """
    for name, value in headers:
        text = value.decode("latin-1")
        if name == b"host":
            host = host_of(text)
        elif name == b"origin":
            host = _origin_host(text)
        else:
            continue
        if not is_loopback(host):
            return Forbidden(
                f"without an API key the service answers this machine only, under the name "
                f"localhost, and the request has another {name.decode().title()} header: set "
                f"EMBEDDINGS_API_KEY; {ANYBODY}"
            )
    return None
