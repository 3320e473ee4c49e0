"""Refuses request bodies that are too large or too slow, before anything parses them."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.core.errors import BodyTooLarge, BodyTooSlow, Overloaded, ServiceError
from deployments.rest.problems import error_response

MOST_DIGITS = 20

LEAST_BYTES = 32 * 1024
"""What a request with a body counts at least: it costs about as much even with a short one."""

FIRST_BYTES_S = 20.0
LEAST_BYTES_A_SECOND = 16 * 1024
"""A body may take FIRST_BYTES_S, and for what has arrived as long as at this rate in addition."""


class BodyLimit:
    """ASGI middleware: a body of more than `max_bytes` is answered with 413.

    All bodies of the requests that aren't answered yet may have `max_held_bytes`: a request that
    would make it more is answered with 429, unless it is the only one. So a flood of requests
    can't take more memory than planned. Bytes count as they come, so that a client that only
    announces many keeps nobody out; one that sends them too slowly is answered with 408.
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
        complete = False
        started_at = asyncio.get_running_loop().time()

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
            nonlocal received, complete
            if complete:
                # From here on the only message is that the client has gone.
                return await receive()
            try:
                async with asyncio.timeout_at(
                    started_at + FIRST_BYTES_S + received / LEAST_BYTES_A_SECOND
                ):
                    message = await receive()
            except TimeoutError:
                raise _Refused(self._too_slow(received)) from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            hold(received)
            return message

        async def note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if _declared_length(scope) > self._max_bytes:
                raise _Refused(self._too_large())
            hold(0)
            await self._app(scope, count, note)
        except _Refused as refused:
            if started:
                raise
            await error_response(refused.error)(scope, receive, send)
        finally:
            self._held_bytes -= held

    def _too_slow(self, received: int) -> BodyTooSlow:
        return BodyTooSlow(
            f"only {received} bytes of the body have come, which is less than "
            f"{LEAST_BYTES_A_SECOND} a second after the first {FIRST_BYTES_S:g} s; send it again, "
            "faster, or in smaller requests"
        )

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
