"""Refuses request bodies that are too large, before anything parses them."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.core.errors import BodyTooLarge
from deployments.problems import error_response


class BodyLimit:
    """ASGI middleware: a body of more than `max_bytes` is answered with 413.

    A declared length is refused at once; a body sent in chunks as soon as it exceeds the limit.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting the bytes of its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        started = False
        received = 0

        async def count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise _TooLarge
            return message

        async def note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, count, note)
        except _TooLarge:
            if started:
                raise
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = BodyTooLarge(
            f"the body has more than {self._max_bytes} bytes; send fewer segments a request, or "
            "raise EMBEDDINGS_MAX_BODY_BYTES"
        )
        await error_response(error)(scope, receive, send)


class _TooLarge(BaseException):
    """Passes through the framework's handlers, which would make it a generic error."""
