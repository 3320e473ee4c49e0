"""What a batcher counts."""

from dataclasses import dataclass


@dataclass(slots=True)
class BatcherStats:
    """What a batcher has waiting, and what it did since it was built."""

    queued_query_tokens: int = 0
    queued_bulk_tokens: int = 0
    queued_seconds: float = 0.0
    """How long what waits takes at the speed of the last micro-batches."""
    batches: int = 0
    rows: int = 0
    """Texts that got a vector."""
    duplicate_rows: int = 0
    """Of these, the texts that shared another's place in the same micro-batch."""
    remembered_rows: int = 0
    """Texts that got the vector of the same text from a moment ago; not among `rows`."""
    useful_tokens: int = 0
    padded_tokens: int = 0
    """Tokens that the forward passes handled, padding included."""
    truncated_rows: int = 0
    overloaded_calls: int = 0
    cancelled_calls: int = 0
    failed_batches: int = 0
    tokenize_seconds: float = 0.0
    encode_seconds: float = 0.0
    """Summed over forward passes, of which a query's and a bulk one may run at the same time."""
    busy_seconds: float = 0.0
    """With at least one forward pass."""
