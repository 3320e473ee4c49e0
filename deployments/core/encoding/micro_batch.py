"""Which texts are encoded together, and which go first."""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from deployments.core.encoding.text_encoder import Tokens
from deployments.core.segments import Vectors

WINDOW_BATCHES = 16
"""Bulk texts are sorted by length within as many tokens as so many micro-batches hold. With 512
tokens of transcripts, 16 leave 7 % padding and 8 leave 11 %; unsorted, it would be half."""

QUERY_BATCHES_PER_BULK = 8
"""While both wait, so many micro-batches of queries go before one of bulk: under a constant load
of queries, writes still make progress, and a query still waits for at most one bulk micro-batch."""


class Priority(IntEnum):
    """Who waits for the vectors: a person for a query's, a program for bulk's."""

    QUERY = 0
    BULK = 1


@dataclass(eq=False, slots=True)
class Job:
    """One call that waits until all its texts are encoded. A done future means: drop the rest."""

    done: asyncio.Future[None]
    vectors: Vectors
    priority: Priority
    rows_left: int
    tokens_queued: int


@dataclass(eq=False, slots=True)
class Row:
    """One text of a job: its vector belongs to `job.vectors[position]`."""

    job: Job
    position: int
    tokens: Tokens


@dataclass(slots=True)
class MicroBatch:
    """What one forward pass encodes: the rows of `groups[i]` all have the tokens `tokens[i]`."""

    tokens: list[Tokens] = field(default_factory=list)
    groups: list[list[Row]] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """All that get a vector."""
        return [row for group in self.groups for row in group]

    @property
    def useful_tokens(self) -> int:
        """Tokens without padding."""
        return sum(map(len, self.tokens))

    @property
    def padded_tokens(self) -> int:
        """Rows times the longest: what the forward pass costs."""
        return len(self.tokens) * max(map(len, self.tokens), default=0)


class MicroBatchQueue:
    """Rows waiting to be encoded, taken as micro-batches of at most `max_batch_tokens`.

    The cost of a micro-batch is its number of distinct token sequences times the longest; a single
    row always fits. Queries go in order of arrival, bulk sorted by length within a window.
    """

    def __init__(self, max_batch_tokens: int) -> None:
        self._max_batch_tokens = max_batch_tokens
        self._queries: deque[Row] = deque()
        self._bulk: deque[Row] = deque()
        self._window: deque[Row] = deque()
        self._query_batches_in_a_row = 0

    def add(self, rows: Iterable[Row], priority: Priority) -> None:
        """Queue rows behind those of the same priority."""
        (self._queries if priority is Priority.QUERY else self._bulk).extend(rows)

    def take(self) -> MicroBatch | None:
        """Remove and return the next micro-batch of either priority, None if nothing waits."""
        if self._query_batches_in_a_row < QUERY_BATCHES_PER_BULK:
            batch = self.take_queries() or self.take_bulk()
        else:
            batch = self.take_bulk() or self.take_queries()
        return batch

    def take_queries(self) -> MicroBatch | None:
        """Remove and return the next micro-batch of queries, None if none waits."""
        batch = self._fill(self._queries)
        if batch:
            self._query_batches_in_a_row += 1
        return batch

    def take_bulk(self) -> MicroBatch | None:
        """Remove and return the next micro-batch of bulk, None if none waits."""
        self._query_batches_in_a_row = 0
        batch = self._fill(self._window)
        if batch is None:
            self._window = self._next_window()
            batch = self._fill(self._window)
        return batch

    def _next_window(self) -> deque[Row]:
        window: list[Row] = []
        room = WINDOW_BATCHES * self._max_batch_tokens
        while self._bulk and room > 0:
            row = self._bulk.popleft()
            if not row.job.done.done():
                window.append(row)
                room -= len(row.tokens)
        return deque(sorted(window, key=lambda row: (len(row.tokens), row.tokens.ids)))

    def _fill(self, rows: deque[Row]) -> MicroBatch | None:
        """Take rows from the left while they fit; those of ended jobs are dropped."""
        batch = MicroBatch()
        group_of: dict[object, list[Row]] = {}
        longest = 0
        while rows:
            row = rows[0]
            if row.job.done.done():
                rows.popleft()
                continue
            group = group_of.get(row.tokens.key)
            if group is not None:
                group.append(rows.popleft())
                continue
            longest = max(longest, len(row.tokens))
            if batch.tokens and (len(batch.tokens) + 1) * longest > self._max_batch_tokens:
                break
            group_of[row.tokens.key] = group = [rows.popleft()]
            batch.tokens.append(row.tokens)
            batch.groups.append(group)
        return batch if batch.tokens else None
