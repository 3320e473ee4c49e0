"""The id of a request: in `X-Request-ID`, in every log line about it, and in calls for several.

Serve takes what a client sends for the id as it is, gives it back, logs it, and fails where it
isn't UTF-8. Serve calls `middlewares` for what belongs before that, in each process that answers
HTTP, when RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it.
"""

import re
from collections.abc import Iterable
from uuid import uuid4

from ray.serve.context import _get_serve_request_context, _set_request_context
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

HEADER = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9._~+/=:-]{1,128}")


def middlewares() -> list[Middleware]:
    """What Serve puts before everything else."""
    return [Middleware(SaneRequestId)]


class SaneRequestId:
    """ASGI middleware: the request has one id, the client's if it is sane, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its id in its headers."""
        if scope["type"] == "http":
            given = [value for name, value in scope["headers"] if name == HEADER]
            if len(given) != 1 or not _SANE.fullmatch(given[0]):
                rest = [(name, value) for name, value in scope["headers"] if name != HEADER]
                scope["headers"] = [*rest, (HEADER, str(uuid4()).encode())]
        await self._app(scope, receive, send)


def current_request_id() -> str:
    """The id of the request, or of the requests, that this task works for; empty if none."""
    request_id: str = _get_serve_request_context().request_id
    return request_id


def work_for(request_ids: Iterable[str]) -> None:
    """Let calls and log lines of this task bear the ids of all requests that it works for."""
    _set_request_context(request_id=",".join(filter(None, dict.fromkeys(request_ids))))
