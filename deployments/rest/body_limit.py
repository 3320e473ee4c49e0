"""Refuses request bodies that are too large, alone or together, before anything parses them."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.core.errors import BodyTooLarge, Overloaded, ServiceError
from deployments.rest.problems import error_response

MOST_DIGITS = 20

LEAST_BYTES = 32 * 1024
"""What a request with a body counts at least: it costs about as much even with a short one."""


class BodyLimit:
    """ASGI middleware: a body of more than `max_bytes` is answered with 413.

    All bodies of the requests that aren't answered yet may have `max_held_bytes`: a request that
    would make it more is answered with 429, unless it is the only one. So a flood of requests
    can't take more memory than planned. A declared length counts at once; a body sent in chunks
    as it comes.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_held_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_held_bytes = max_held_bytes
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting the bytes of its body."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        started = False
        received = held = 0

        def hold(bytes_of_body: int) -> None:
            nonlocal held
            if bytes_of_body > self._max_bytes:
                raise _Refused(self._too_large())
            more = max(bytes_of_body, LEAST_BYTES) - held
            if more <= 0:
                return
            others = self._held_bytes - held
            if others and self._held_bytes + more > self._max_held_bytes:
                raise _Refused(self._too_many())
            held += more
            self._held_bytes += more

        async def count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            hold(received)
            return message

        async def note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            hold(_declared_length(scope))
            await self._app(scope, count, note)
        except _Refused as refused:
            if started:
                raise
            await error_response(refused.error)(scope, receive, send)
        finally:
            self._held_bytes -= held

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"the body has more than {self._max_bytes} bytes; send fewer segments a request, or "
            "raise EMBEDDINGS_MAX_BODY_BYTES"
        )

    def _too_many(self) -> Overloaded:
        return Overloaded(
            f"requests with {self._held_bytes} bytes are being answered already, of at most "
            f"{self._max_held_bytes} (EMBEDDINGS_MAX_HELD_BYTES); try again later"
        )


def _declared_length(scope: Scope) -> int:
    declared: bytes = dict(scope["headers"]).get(b"content-length", b"0")
    # Python refuses to convert thousands of digits.
    return int(declared[:MOST_DIGITS]) if declared.isdigit() else 0


class _Refused(BaseException):
    """Passes through the framework's handlers, which would make it a generic error."""

    def __init__(self, error: ServiceError) -> None:
        self.error = error
