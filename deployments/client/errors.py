"""Every error that the client raises.

EmbeddingsError
├── InvalidValue         a value that no request can carry; nothing was sent
├── Unreachable          no connection to the service, or one that broke
├── TimedOut             no answer in time
├── UnexpectedAnswer     an answer that no version of the service gives
└── Refused              the service answered with an error
    ├── InvalidRequest   400, 413, 422: sending it again won't help
    ├── Unauthorized     401: no key, or none that is known
    ├── Forbidden        403: a read-only key
    ├── NotFound         404
    ├── Overloaded       429: try again later
    └── Unavailable      500 and above
"""

from collections.abc import Sequence
from dataclasses import dataclass


class EmbeddingsError(Exception):
    """Root of the client's errors; `detail` says what is wrong in a sentence."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidValue(EmbeddingsError):
    """A value has no form in a request: NaN, half a character, an object. Nothing was sent."""


class Unreachable(EmbeddingsError):
    """No connection could be made, or it broke before the answer was there.

    `sent` is false if the service certainly hasn't seen the request.
    """

    def __init__(self, detail: str, *, sent: bool = True) -> None:
        super().__init__(detail)
        self.sent = sent

    def __reduce__(self) -> tuple[object, ...]:
        return _unreachable, (self.detail, self.sent)


def _unreachable(detail: str, sent: bool) -> Unreachable:
    return Unreachable(detail, sent=sent)


class TimedOut(EmbeddingsError):
    """The answer didn't come in time; a write may have been applied."""


class UnexpectedAnswer(EmbeddingsError):
    """The answer isn't one of the service's: another server, or a version that doesn't fit."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with a request: where, as a stable code, and for people."""

    location: str
    code: str
    message: str


class Refused(EmbeddingsError):
    """The service answered with an error.

    `status` is that of HTTP, `code` is stable and meant for programs, `retry_after_s` is set where
    the same request may succeed later, `errors` tell the wrong fields, and `request_id` is in the
    service's log.
    """

    def __init__(
        self,
        detail: str,
        status: int = 500,
        code: str = "internal_error",
        retry_after_s: float | None = None,
        errors: Sequence[FieldError] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        self.errors = tuple(errors)
        self.request_id = request_id

    @property
    def is_of_a_proxy(self) -> bool:
        """Whether something answered that stands before the service, or isn't one."""
        return self.code.startswith("http_")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (
            self.detail,
            self.status,
            self.code,
            self.retry_after_s,
            self.errors,
            self.request_id,
        )

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail}"


class InvalidRequest(Refused):
    """The request is wrong; sending it again won't help."""


class Unauthorized(Refused):
    """The service needs an API key, and this one isn't known."""


class Forbidden(Refused):
    """The key doesn't allow it."""


class NotFound(Refused):
    """There is no such media item, segment, model or route."""


class Overloaded(Refused):
    """Too much is waiting; nothing of the request was done."""


class Unavailable(Refused):
    """The service, or a part of it, can't answer now."""


BY_STATUS: dict[int, type[Refused]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: InvalidRequest,
    413: InvalidRequest,
    422: InvalidRequest,
    429: Overloaded,
}
"""The class of each status; of others Unavailable from 500 on, else Refused."""
