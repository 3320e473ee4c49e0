"""One log line and one observation for each request, without anything that a client wrote."""

import logging
from collections.abc import Callable
from http import HTTPStatus
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.request_ids import current_request_id
from deployments.rest.routes import route_path, route_template

logger = logging.getLogger(__name__)

Observe = Callable[[str, str, int, float], None]
"""Gets the route, the method, the status and the seconds that the answer took."""

CLIENT_GONE = 499
"""In place of a status, when there was nobody left to answer."""


class RequestLog:
    """ASGI middleware: logs and observes each answer; belongs outside of all that answers."""

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and take its time."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = CLIENT_GONE
        started = perf_counter()

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        except Exception:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            raise
        finally:
            self._note(scope, status, perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route, method = route_template(scope), scope["method"]
        self._observe(route, method, status, seconds)
        # Probes come every second.
        level = logging.DEBUG if route_path(scope).startswith("/health") else logging.INFO
        if logger.isEnabledFor(level):
            milliseconds = round(seconds * 1000, 1)
            logger.log(
                level,
                "%s %s %d in %s ms",
                method,
                route,
                status,
                milliseconds,
                # Serve's filters, which look up more than the id, take longer than all the rest.
                extra={
                    "skip_context_filter": True,
                    "request_id": current_request_id(),
                    "http_method": method,
                    "http_route": route,
                    "http_status": int(status),
                    "duration_ms": milliseconds,
                    "log_to_stderr": False,
                },
            )
