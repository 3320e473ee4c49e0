"""Where micro-batches are encoded."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from deployments.core.encoding.micro_batch import MicroBatch
from deployments.core.encoding.text_encoder import TextEncoder

SPEED_MEMORY = 0.9
"""Of a lane's measured speed, the part that the next micro-batch leaves."""

MOST_GROWTH = 4.0
"""A micro-batch counts for so many times the time before at most: small ones cost more a token."""


class EncodeLane:
    """Takes one micro-batch after the other from `take`, and has a thread to encode them in."""

    def __init__(
        self,
        encoder: TextEncoder,
        take: Callable[[], MicroBatch | None],
        prepare_thread: Callable[[], None] | None = None,
    ) -> None:
        self.encoder = encoder
        self.take = take
        self.thread = ThreadPoolExecutor(
            1, thread_name_prefix="encode", initializer=prepare_thread or (lambda: None)
        )
        self.worker: asyncio.Task[None] | None = None
        self.seconds_a_token = 0.0
        """Of the last micro-batches; 0 before the first."""

    def encoded(self, tokens: int, seconds: float) -> None:
        """Learn the speed from a micro-batch."""
        now = seconds / tokens
        before = self.seconds_a_token or now
        now = min(now, MOST_GROWTH * before)
        self.seconds_a_token = SPEED_MEMORY * before + (1 - SPEED_MEMORY) * now
