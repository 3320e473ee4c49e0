"""Calls between deployments: deadlines, retries, and Ray's errors as the service's own."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ray.exceptions import (
    RayActorError,
    RaySystemError,
    RayTaskError,
    TaskCancelledError,
)
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    RequestCancelledError,
)
from ray.serve.handle import DeploymentResponse

from deployments.core.errors import DeadlineExceeded, NotReady, Overloaded, ServiceError

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
PATIENCE_S = 15.0
"""Longer than a replica takes to restart; after it, callers hear that they should try again."""


async def call(
    send: Callable[[], DeploymentResponse],
    *,
    what: str,
    timeout_s: float,
    repeatable: bool = True,
    patience_s: float = PATIENCE_S,
) -> Any:
    """Await a remote call for at most `timeout_s`, and repeat it while its target restarts.

    `send` makes the call; `what` names its target in messages. With `repeatable` False, only a
    call that surely never began is sent again. `patience_s` after the first call none is sent.

    Raises the service's errors only: those of the target as they are, NotReady when the target
    didn't come back in time, DeadlineExceeded when it didn't answer, Overloaded when its queue is
    full.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    last_call = loop.time() + min(patience_s, timeout_s)
    pause_s = FIRST_PAUSE_S
    while True:
        response = send()
        try:
            async with asyncio.timeout_at(deadline):
                return await response
        except TimeoutError:
            # With Serve's default transport, giving up the wait doesn't give up the call.
            response.cancel()
            raise DeadlineExceeded(
                f"{what} didn't answer within {timeout_s:g} s; `serve status` tells whether it runs"
            ) from None
        except Exception as error:
            translated, begun = _translate(error, what)
            too_late = loop.time() + pause_s >= last_call
            if not isinstance(translated, NotReady) or too_late or (begun and not repeatable):
                raise translated from error
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _translate(error: Exception, what: str) -> tuple[ServiceError, bool]:
    """The service's error for what a call raised, and whether the call may have begun."""
    if isinstance(error, RayTaskError) and error.cause is not None:
        # Ray raises a class made of its own and the original one; the original is the cause.
        error = error.cause
    match error:
        case ServiceError():
            return error, not isinstance(error, NotReady)
        case BackPressureError():
            return Overloaded(f"too many requests wait for {what}; try again later"), False
        case DeploymentUnavailableError() | RayServeException():
            return NotReady(f"{what} isn't available; `serve status` tells why"), False
        case RayActorError() | RequestCancelledError() | TaskCancelledError() | RaySystemError():
            return NotReady(f"{what} was restarted while it worked on this; try again"), True
        case _:
            logger.error("A call to %s failed", what, exc_info=error)
            return ServiceError(f"{what} failed; its log has the reason"), True
