"""Where segments go: what every way to the service has in common."""

from typing import Protocol

from deployments.core.errors import BodyTooLarge, InvalidInput, ServiceError
from deployments.core.segments import Upsert, UpsertResult


class Destination(Protocol):
    """A running service."""

    async def embed(self, upsert: Upsert) -> UpsertResult:
        """Store segments durably.

        Raises Postponed if trying again later may help, Refused if the request is wrong, and
        ServiceError for what ends the backfill.
        """
        ...


class Postponed(Exception):
    """The service can't do it now; repeating it is safe, after `retry_after_s` seconds."""

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Unexplained(Postponed):
    """An error without a reason: of a service that was killed meanwhile, or of the call's own."""


class Refused(Exception):
    """The service won't store these segments, however often they are sent."""


def outcome(error: ServiceError) -> Exception:
    """What one of the service's errors means for a backfill."""
    if isinstance(error, InvalidInput | BodyTooLarge):
        return Refused(error.detail)
    if error.retry_after_s is not None:
        return Postponed(error.detail, error.retry_after_s)
    return error
