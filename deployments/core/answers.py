"""What a search is answered with."""

from dataclasses import dataclass

from deployments.core.segments import Hit


@dataclass(frozen=True, slots=True)
class Answer:
    """What one search found, best first.

    `exhausted` tells of a search with a filter that nothing else matches.
    """

    hits: list[Hit]
    exhausted: bool = False
