"""Gathers the texts of many calls into micro-batches for an encoder."""

import asyncio
import contextvars
import math
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from deployments.core.encoding.batcher_stats import BatcherStats
from deployments.core.encoding.encode_lane import EncodeLane
from deployments.core.encoding.micro_batch import Job, MicroBatch, MicroBatchQueue, Priority, Row
from deployments.core.encoding.text_encoder import TextEncoder, TextKind, Tokens
from deployments.core.encoding.vector_cache import VectorCache
from deployments.core.errors import NotReady, Overloaded, ServiceError
from deployments.core.segments import Vectors
from deployments.core.thread_priority import lower_priority

__all__ = ["BatcherStats", "Encoded", "Priority", "TokenBatcher"]

TEXTS_PER_TOKENIZATION = 128
"""Texts tokenised in one go, so that a large call never holds a tokenising thread for long."""

TOKENS_WITHOUT_THREAD = 128
"""Tokenising so few takes less than handing them to a thread and back: half a millisecond."""

REMEMBERED_ROWS = 4096
"""Bulk texts whose vectors are kept for a while: as many as lie within a few windows of the queue.
A client that was killed or gave up sends the same texts again a moment later, when some of its
calls were encoded in part, or still are."""

CHARACTERS_PER_TOKEN = 4
"""Of English text; used to estimate a call's tokens before it is tokenised."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The vectors of one call's texts, in order, and whether each text was cut at the limit.

    `tokens` are the numbers of tokens that were encoded: with special tokens, without padding.
    """

    vectors: Vectors
    truncated: tuple[bool, ...]
    tokens: tuple[int, ...]


class TokenBatcher:
    """Encodes for many concurrent calls, queries before bulk.

    With a `bulk_encoder`, a second one of the same model, bulk is encoded beside the queries and
    gives way to them by its threads' low priority: on a CPU, where a forward pass can't be
    interrupted but a thread can. Without one, queries and bulk take turns: a query waits for at
    most one micro-batch of bulk, and bulk for `QUERY_BATCHES_PER_BULK` of queries.

    The next micro-batch is chosen when the one before is done, so a text that comes meanwhile is
    in it. What was encoded as bulk a moment ago isn't encoded again. Serves one event loop.

    A micro-batch has at most `max_batch_tokens`, padding included. A call that would make more
    than `max_queued_tokens` of its priority wait is refused, unless nothing waits; so is one before
    which more waits than is encoded in `max_wait_s`, by the speed so far.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        *,
        max_batch_tokens: int,
        max_queued_tokens: int,
        max_wait_s: float = math.inf,
        bulk_encoder: TextEncoder | None = None,
    ) -> None:
        if min(max_batch_tokens, max_queued_tokens) < 1:
            raise ValueError(
                f"max_batch_tokens ({max_batch_tokens}) and max_queued_tokens "
                f"({max_queued_tokens}) must be at least 1"
            )
        self.encoder = encoder
        self._max_queued_tokens = max_queued_tokens
        self._max_wait_s = max_wait_s
        self._queue = MicroBatchQueue(max_batch_tokens)
        self._queued = {Priority.QUERY: 0, Priority.BULK: 0}
        self._jobs: set[Job] = set()
        if bulk_encoder is None:
            lane = EncodeLane(encoder, self._queue.take)
            self._lanes = {Priority.QUERY: lane, Priority.BULK: lane}
        else:
            self._lanes = {
                Priority.QUERY: EncodeLane(encoder, self._queue.take_queries),
                Priority.BULK: EncodeLane(bulk_encoder, self._queue.take_bulk, lower_priority),
            }
        self._recent: VectorCache[Hashable] = VectorCache(REMEMBERED_ROWS)
        self._tokenize_threads = ThreadPoolExecutor(4, thread_name_prefix="tokenize")
        self._running = 0
        self._busy_since = 0.0
        self._stats = BatcherStats()
        self._closed = False

    def stats(self) -> BatcherStats:
        """A copy of the counters."""
        busy = self._stats.busy_seconds
        if self._running:
            busy += time.perf_counter() - self._busy_since
        return replace(
            self._stats,
            busy_seconds=busy,
            queued_query_tokens=self._queued[Priority.QUERY],
            queued_bulk_tokens=self._queued[Priority.BULK],
            queued_seconds=sum(map(self._wait_s, Priority)),
        )

    async def encode(self, texts: Sequence[str], kind: TextKind, priority: Priority) -> Encoded:
        """Encode texts; vectors have the shape (len(texts), dimension).

        Cancelling it drops what is still queued of it. Raises Overloaded at once if too much
        waits, NotReady after `close`, and a ServiceError if a micro-batch with one of the texts
        failed.
        """
        if self._closed:
            raise _closing()
        if isinstance(texts, str):
            raise TypeError("texts is one string; expected a sequence of strings")
        return await self._encode_tokens(await self._tokenize(texts, kind, priority), priority)

    async def encode_images(self, images: Sequence[Tokens], priority: Priority) -> Encoded:
        """As `encode`, of what the encoder's `image_tokens` made."""
        if self._closed:
            raise _closing()
        self._refuse_if_overloaded(sum(map(len, images)), priority)
        return await self._encode_tokens(images, priority)

    async def _encode_tokens(self, tokens: Sequence[Tokens], priority: Priority) -> Encoded:
        truncated = tuple(one.truncated for one in tokens)
        self._stats.truncated_rows += sum(truncated)
        vectors = np.empty((len(tokens), self.encoder.identity.dimension), dtype=np.float32)
        if tokens:
            await self._wait_for(self._enqueue(tokens, vectors, priority))
        return Encoded(vectors, truncated, tuple(map(len, tokens)))

    async def close(self) -> None:
        """Refuse new calls, fail waiting ones with NotReady, let the running micro-batch end."""
        self._closed = True
        for job in list(self._jobs):
            self._finish(job, _closing())
        while workers := [lane.worker for lane in self._lanes.values() if lane.worker]:
            await asyncio.wait(workers)
        for lane in self._lanes.values():
            lane.thread.shutdown(wait=False)
        self._tokenize_threads.shutdown(wait=False)

    async def _tokenize(
        self, texts: Sequence[str], kind: TextKind, priority: Priority
    ) -> list[Tokens]:
        expected = self._expected_tokens(texts)
        self._refuse_if_overloaded(expected, priority)
        if expected <= TOKENS_WITHOUT_THREAD:
            return self.encoder.tokenize(texts, kind)
        loop = asyncio.get_running_loop()
        tokens: list[Tokens] = []
        self._queued[priority] += expected
        started = time.perf_counter()
        try:
            for start in range(0, len(texts), TEXTS_PER_TOKENIZATION):
                part = texts[start : start + TEXTS_PER_TOKENIZATION]
                tokens += await loop.run_in_executor(
                    self._tokenize_threads, self.encoder.tokenize, part, kind
                )
                if self._closed:
                    raise _closing()
        finally:
            self._queued[priority] -= expected
            self._stats.tokenize_seconds += time.perf_counter() - started
        return tokens

    def _refuse_if_overloaded(self, expected: int, priority: Priority) -> None:
        queued, wait_s = self._queued[priority], self._wait_s(priority)
        if queued and queued + expected > self._max_queued_tokens:
            reason = (
                f"{queued} tokens are waiting to be encoded and this request has about {expected}; "
                f"the limit is {self._max_queued_tokens}"
            )
        elif wait_s > self._max_wait_s:
            reason = (
                f"what is waiting to be encoded takes about {wait_s:.0f} s; the limit is "
                f"{self._max_wait_s:g} s"
            )
        else:
            return
        self._stats.overloaded_calls += 1
        raise Overloaded(f"{reason}; try again later")

    def _wait_s(self, priority: Priority) -> float:
        return self._queued[priority] * self._lanes[priority].seconds_a_token

    def _expected_tokens(self, texts: Sequence[str]) -> int:
        limit = self.encoder.max_tokens
        return sum(min(2 + len(text) // CHARACTERS_PER_TOKEN, limit) for text in texts)

    def _enqueue(self, tokens: Sequence[Tokens], vectors: Vectors, priority: Priority) -> Job:
        loop = asyncio.get_running_loop()
        total = sum(map(len, tokens))
        job = Job(loop.create_future(), vectors, priority, len(tokens), total)
        self._jobs.add(job)
        self._queued[priority] += total
        self._queue.add((Row(job, i, one) for i, one in enumerate(tokens)), priority)
        lane = self._lanes[priority]
        if lane.worker is None:
            # An empty context: the worker serves all calls, not the one that starts it.
            lane.worker = loop.create_task(self._work(lane), context=contextvars.Context())
        return job

    async def _wait_for(self, job: Job) -> None:
        try:
            await job.done
        except asyncio.CancelledError:
            self._stats.cancelled_calls += 1
            raise
        finally:
            self._finish(job)

    def _finish(self, job: Job, error: ServiceError | None = None) -> None:
        """End a job early or late: its rows that still wait count no more and will be dropped."""
        if job in self._jobs:
            self._jobs.remove(job)
            self._queued[job.priority] -= job.tokens_queued
            job.tokens_queued = 0
        if job.done.done():
            return
        if error is None:
            job.done.set_result(None)
        else:
            job.done.set_exception(error)

    async def _work(self, lane: EncodeLane) -> None:
        try:
            while batch := lane.take():
                await self._encode(lane, batch)
        finally:
            # No await lies between the empty queue and this line, so no row is left behind.
            lane.worker = None

    async def _encode(self, lane: EncodeLane, batch: MicroBatch) -> None:
        for row in batch.rows:
            row.job.tokens_queued -= len(row.tokens)
            self._queued[row.job.priority] -= len(row.tokens)
        batch = self._without_remembered(batch)
        if not batch.tokens:
            return
        rows = batch.rows
        started = time.perf_counter()
        if not self._running:
            self._busy_since = started
        self._running += 1
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(
                lane.thread, lane.encoder.encode, batch.tokens
            )
            if len(vectors) != len(batch.tokens):
                raise ServiceError(f"{len(batch.tokens)} texts gave {len(vectors)} vectors")
        except Exception as error:
            self._stats.failed_batches += 1
            for job in {row.job for row in rows}:
                self._finish(job, _as_service_error(error))
            return
        finally:
            ended = time.perf_counter()
            self._stats.encode_seconds += ended - started
            self._running -= 1
            if not self._running:
                self._stats.busy_seconds += ended - self._busy_since
        lane.encoded(batch.useful_tokens, ended - started)
        self._stats.batches += 1
        self._stats.rows += len(rows)
        self._stats.duplicate_rows += len(rows) - len(batch.tokens)
        self._stats.useful_tokens += batch.useful_tokens
        self._stats.padded_tokens += batch.padded_tokens
        for tokens, vector, group in zip(batch.tokens, vectors, batch.groups, strict=True):
            self._give(vector, group)
            if any(row.job.priority is Priority.BULK for row in group):
                self._recent.keep(tokens.key, vector)

    def _without_remembered(self, batch: MicroBatch) -> MicroBatch:
        """Give rows the vectors that are remembered; returns the others."""
        left = MicroBatch()
        for tokens, group in zip(batch.tokens, batch.groups, strict=True):
            known = self._recent.get(tokens.key)
            if known is None:
                left.tokens.append(tokens)
                left.groups.append(group)
            else:
                self._stats.remembered_rows += len(group)
                self._give(known, group)
        return left

    def _give(self, vector: npt.NDArray[np.float32], rows: list[Row]) -> None:
        for row in rows:
            row.job.vectors[row.position] = vector
            row.job.rows_left -= 1
            if not row.job.rows_left:
                self._finish(row.job)


def _as_service_error(error: Exception) -> ServiceError:
    """A fresh error for each call: one shared instance would collect the tracebacks of all."""
    if isinstance(error, ServiceError):
        copy = type(error)(error.detail)
    else:
        copy = ServiceError(f"encoding failed: {type(error).__name__}: {error}")
    copy.__cause__ = error
    return copy


def _closing() -> NotReady:
    return NotReady("this replica is shutting down; send the request again")
