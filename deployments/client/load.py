"""Searches at a running service as fast as a number of clients can, and how long each took."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from deployments.client import calls
from deployments.client.async_client import AsyncClient
from deployments.client.errors import EmbeddingsError, Refused
from deployments.client.transport import Retries

WARM_UP_S = 1.0
SAMPLED_MEDIA_ITEMS = 20
WORDS = (3, 9)
"""Words of a query made from a stored text, from and to before."""


@dataclass(slots=True)
class Load:
    """What a load showed: seconds of each answer, and how many errors there were by code."""

    clients: int
    seconds: float
    answers_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def per_second(self) -> float:
        """Searches answered in a second."""
        return len(self.answers_s) / self.seconds

    def percentile_ms(self, share: float) -> float:
        """The time in milliseconds that this share of the answers took at most (nearest rank)."""
        ordered = sorted(self.answers_s)
        rank = max(1, -(-len(ordered) * round(share * 1000) // 1000))
        return 1000 * ordered[rank - 1]

    def summary(self) -> dict[str, Any]:
        """The figures, for programs."""
        figures: dict[str, Any] = {
            "clients": self.clients,
            "seconds": self.seconds,
            "searches": len(self.answers_s),
            "searches_per_second": round(self.per_second, 1),
            "errors": dict(self.errors),
        }
        for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99), ("max_ms", 1.0)):
            figures[name] = round(self.percentile_ms(share), 1) if self.answers_s else None
        return figures


async def stored_phrases(client: AsyncClient, kind: str) -> list[str]:
    """Phrases from what is stored, all different, so that the service has to encode each anew."""
    call = calls.media(kind, SAMPLED_MEDIA_ITEMS, None)
    items = (await client.document(call))["media"]
    phrases = set()
    for item in items:
        page = calls.segments(item["media_item_id"], kind, 1000, None)
        for segment in (await client.document(page))["segments"]:
            words = segment["metadata"]["text"].split()
            for start in range(len(words)):
                phrases |= {" ".join(words[start : start + n]) for n in range(*WORDS)}
    return sorted(phrases)


async def measure(
    url: str,
    api_key: str | None,
    queries: Sequence[str] | None,
    options: Mapping[str, Any],
    clients: int,
    seconds: float,
    tick: Callable[[float], None],
) -> Load:
    """Search for `seconds` after a warm-up; without `queries` for phrases of what is stored.

    `tick` is called with the share that is done. Nothing is repeated: a refusal counts as one.
    Raises EmbeddingsError, and ValueError if there is nothing to search for.
    """
    async with AsyncClient(url, api_key, retries=Retries(attempts=1)) as client:
        found = list(queries or await stored_phrases(client, options["embedding_type"]))
        if not found:
            raise ValueError(
                f"no {options['embedding_type']} segments are stored, from which queries could be "
                "made; store some, or give --queries FILE"
            )
        random.Random(clients).shuffle(found)
        load = Load(clients, seconds)
        begin = time.perf_counter() + WARM_UP_S
        end = begin + seconds

        async def one(number: int) -> None:
            mine = islice(_endless(found), number * len(found) // clients, None)
            while (started := time.perf_counter()) < end:
                try:
                    await client.search(next(mine), **options)
                except EmbeddingsError as error:
                    if started >= begin:
                        load.errors[
                            error.code if isinstance(error, Refused) else "unreachable"
                        ] += 1
                    await asyncio.sleep(getattr(error, "retry_after_s", None) or 0.1)
                    continue
                done = time.perf_counter()
                if started >= begin and done <= end:
                    load.answers_s.append(done - started)
                tick(min(1.0, max(0.0, (done - begin) / seconds)))

        await asyncio.gather(*(one(number) for number in range(clients)))
    return load


def _endless(queries: Sequence[str]) -> Any:
    while True:
        yield from queries
