"""What a search is answered with."""

from dataclasses import dataclass

from deployments.core.errors import ServiceError
from deployments.core.segments import Hit


@dataclass(frozen=True, slots=True)
class Answer:
    """What one search found, best first.

    `exhausted` tells of a search with a filter or a shape that nothing else matches. If it is
    `paged`, `next_cursor` leads to the next page, and is None after the last one. With a `failure`,
    the search couldn't be carried out.
    """

    hits: list[Hit]
    exhausted: bool = False
    paged: bool = False
    next_cursor: str | None = None
    failure: ServiceError | None = None
