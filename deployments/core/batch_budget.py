"""How large micro-batches may be on this machine, found by trying."""

import time
from collections.abc import Callable

from deployments.core.text_encoder import TextEncoder, Tokens

BULK_BATCH_SECONDS = 0.1
"""How long a query may wait for the micro-batch of bulk that is running when it comes."""

LEAST_BATCH_TOKENS = 256
MOST_BATCH_TOKENS = 16_384

_TRIES = 2


def measured_batch_tokens(
    encoder: TextEncoder,
    *,
    seconds: float = BULK_BATCH_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """The largest micro-batch, in padded tokens, that encodes within so many seconds.

    Tries twice as many until it takes too long, so about four times `seconds` on a CPU, where
    256 tokens already use it fully. It warms the encoder up too. Between 256 and 16,384.
    """
    row = _sentence(encoder)
    tokens = LEAST_BATCH_TOKENS
    encoder.encode([row])
    while tokens < MOST_BATCH_TOKENS:
        rows = [row] * max(1, 2 * tokens // len(row))
        if min(_duration(encoder, rows, clock) for _ in range(_TRIES)) > seconds:
            break
        tokens *= 2
    return tokens


def _sentence(encoder: TextEncoder) -> Tokens:
    """A text of about the length of a transcript's segment."""
    text = "The index closed higher today as traders weighed what the central bank said of rates."
    return encoder.tokenize([f"{text} {text}"], "document")[0]


def _duration(encoder: TextEncoder, rows: list[Tokens], clock: Callable[[], float]) -> float:
    started = clock()
    encoder.encode(rows)
    return clock() - started
