"""What both clients have in common: where the service is, answers as values, errors, pauses."""

import math
import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from deployments.client.bodies import check_text, encoded
from deployments.client.calls import DEFAULT_URL, Call
from deployments.client.errors import (
    BY_STATUS,
    EmbeddingsError,
    FieldError,
    InvalidValue,
    Overloaded,
    Refused,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is sent, and how long the pauses between are.

    They double from `first_pause_s` to `longest_pause_s`, are at least what `Retry-After` says, and
    are stretched by up to half at random, so that clients don't come back all at once. With
    `attempts=1` nothing is repeated.
    """

    attempts: int = 5
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0

    def pause_s(self, call: Call[Any], error: EmbeddingsError, attempt: int) -> float | None:
        """How long to wait after the `attempt`th failure, from 1; None if it is not to be repeated.

        Also not where the service asks for a pause that is longer than the longest one.
        """
        asked = (error.retry_after_s or 0.0) if isinstance(error, Refused) else 0.0
        if attempt >= self.attempts or asked > self.longest_pause_s or not _may_help(call, error):
            return None
        pause = max(asked, min(self.first_pause_s * 2 ** (attempt - 1), self.longest_pause_s))
        return pause * random.uniform(1.0, 1.5)


def _may_help(call: Call[Any], error: EmbeddingsError) -> bool:
    """Whether the same request may succeed later, and can do no harm."""
    if isinstance(error, Overloaded):
        return True
    if isinstance(error, Unreachable):
        return call.repeatable or not error.sent
    if not call.repeatable or not isinstance(error, Refused):
        return False
    # The service names what passes by Retry-After; what stands before it may not.
    of_a_proxy = error.is_of_a_proxy and error.status in (502, 503, 504)
    return error.retry_after_s is not None or of_a_proxy


def service_url(given: str | None) -> str:
    """The URL given, else EMBEDDINGS_SERVICE_URL, else http://localhost:8004.

    Raises ValueError for what isn't an HTTP URL.
    """
    url = given or os.environ.get("EMBEDDINGS_SERVICE_URL") or DEFAULT_URL
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"the service's URL {url!r} can't be used: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"the service's URL is {url!r}; expected one such as {DEFAULT_URL}")
    return url.rstrip("/")


def headers(api_key: str | None) -> dict[str, str]:
    """The headers with the key given, else EMBEDDINGS_API_KEY; of several the first one.

    Raises ValueError, without the key, for what can't be in a header.
    """
    given = os.environ.get("EMBEDDINGS_API_KEY", "") if api_key is None else api_key
    key, *_ = [*filter(None, re.split(r"[\s,]+", given)), ""]
    if not key.isascii() or not key.isprintable():
        raise ValueError("the API key has other characters than letters, digits and -._~+/=")
    return {"Authorization": f"Bearer {key}"} if key else {}


def timeout(seconds: float) -> httpx.Timeout:
    """The time-outs of a request: to connect, to send, and to wait for the answer."""
    return httpx.Timeout(seconds, connect=min(seconds, CONNECT_TIMEOUT_S))


def request(call: Call[Any]) -> dict[str, Any]:
    """A call as arguments of httpx' `request`. Raises InvalidValue for what can't be sent."""
    arguments: dict[str, Any] = {"method": call.method, "url": call.path, "params": call.params}
    for name, each in (call.params or {}).items():
        check_text(name, str(each))
    if call.body is not None:
        arguments["content"] = encoded(call.body)
        arguments["headers"] = {"Content-Type": "application/json"}
    return arguments


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Raises httpx' errors as the client's own."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Unreachable(f"{url} doesn't answer: {_reason(error)}", sent=False) from error
    except httpx.TimeoutException as error:
        raise TimedOut(f"{url} didn't answer in time: {_reason(error)}") from error
    except httpx.TransportError as error:
        raise Unreachable(f"the connection to {url} broke: {_reason(error)}") from error
    except httpx.DecodingError as error:
        raise UnexpectedAnswer(f"{url} gave an answer that can't be read: {error}") from error
    except httpx.InvalidURL as error:
        raise InvalidValue(f"the request's URL can't be used: {error}") from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def document(call: Call[Any], response: httpx.Response) -> Any:
    """The answer's JSON. Raises Refused, or UnexpectedAnswer for what isn't the service's."""
    if response.status_code != httpx.codes.OK and response.status_code not in call.readable:
        raise _refusal(response)
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise UnexpectedAnswer(
            f"{response.url} answered {response.status_code} with what isn't JSON; is it the "
            "embeddings service?"
        ) from error


def value(call: Call[T], answer: Any) -> T:
    """The answer as the call's value. Raises UnexpectedAnswer."""
    try:
        return call.read(answer)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(
            f"the answer to {call.method} {call.path} isn't one that this client knows "
            f"({type(error).__name__}: {error}); is it the embeddings service, of this version?"
        ) from error


def _refusal(response: httpx.Response) -> Refused:
    status = response.status_code
    kind = BY_STATUS.get(status, Unavailable if status >= 500 else Refused)
    detail, code, errors = _problem(response)
    return kind(
        detail,
        status,
        code,
        _seconds(response.headers.get("Retry-After")),
        errors,
        response.headers.get("X-Request-ID"),
    )


def _problem(response: httpx.Response) -> tuple[str, str, list[FieldError]]:
    """Detail, code and wrong fields from a problem document, or from an error of OpenAI's form."""
    try:
        answer = response.json()
        if "error" in answer:
            return str(answer["error"]["message"]), str(answer["error"]["code"]), []
        errors = [
            FieldError(each["location"], each["code"], each["message"])
            for each in answer.get("errors") or ()
        ]
        return str(answer["detail"]), str(answer["code"]), errors
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        status = response.status_code
        return f"{response.url} answered {status} {response.reason_phrase}", f"http_{status}", []


def _seconds(retry_after: str | None) -> float | None:
    """What Retry-After asks for; proxies may say it as a date. None for what isn't either."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            then = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        # Without a zone it is in UTC ("-0000").
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
        seconds = (then - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
