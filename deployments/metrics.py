"""The service's own metrics, at the Prometheus endpoint of each Ray node (there as `ray_…`).

core gathers plain numbers. A class here a deployment publishes them, from a thread every few
seconds and not for each request; only latencies are observed as they come, at 2 µs each. Names
begin with `embeddings_` and end in a unit; counters end in `_total`.
"""

import collections
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ray.util.metrics import Counter, Gauge, Histogram

from deployments.backfill.tally import Tally
from deployments.core.encoding.batcher import BatcherStats, Priority
from deployments.core.encoding.query_cache import CacheStats
from deployments.core.index.index_condition import IndexCondition
from deployments.core.storage.migration_record import MigrationStatus

logger = logging.getLogger(__name__)

PUBLISH_PERIOD_S = 5.0
LATENCY_BOUNDARIES_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]


class Publisher:
    """A thread that calls `publish` at once and then every few seconds."""

    def __init__(self, publish: Callable[[], None], period_s: float = PUBLISH_PERIOD_S) -> None:
        self._publish = publish
        self._period_s = period_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        closing = False
        while not closing:
            try:
                self._publish()
            except Exception:
                logger.exception("The metrics could not be published.")
            closing = self._closing.wait(self._period_s)

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join()


class Total:
    """A counter that follows numbers which something else counts since its own start."""

    def __init__(self, name: str, description: str, *tags: str) -> None:
        self._counter = Counter(name, description, tag_keys=tags)
        self._seen: dict[tuple[str, ...], float] = {}

    def follow(self, value: float, **tags: str) -> None:
        """Count what `value`, which belongs to these tags, grew by since the last call."""
        key = tuple(tags.values())
        grown = value - self._seen.get(key, 0.0)
        if grown > 0:
            self._counter.inc(grown, tags=tags)
            self._seen[key] = value


@dataclass
class SearchCalls:
    """How many queries an Ingress has sent, in how many calls, and how many wait."""

    queries: int = 0
    calls: int = 0
    waiting: int = 0


class IngressMetrics:
    """What an Ingress was asked, what it answered, and how its searches share calls."""

    def __init__(self) -> None:
        self._ready = Gauge(
            "embeddings_ready", "1 if an encode and a search really worked just now, else 0."
        )
        self._counts: collections.Counter[tuple[str, str, int]] = collections.Counter()
        self._requests = Total(
            "embeddings_http_requests_total",
            "Requests that were answered; status 499 if the client had gone.",
            "route",
            "method",
            "status",
        )
        self._seconds = Histogram(
            "embeddings_http_request_seconds",
            "Time from a request's arrival in the Ingress to the end of its answer.",
            LATENCY_BOUNDARIES_S,
            ("route",),
        )
        self._waiting = Gauge(
            "embeddings_ingress_waiting_searches", "Searches that wait for a call to an Encoder."
        )
        self._queries = Total(
            "embeddings_ingress_queries_total", "Queries that were sent to an Encoder."
        )
        self._calls = Total(
            "embeddings_ingress_encoder_calls_total", "Calls that these queries travelled in."
        )

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Observe an answer."""
        self._counts[route, method, int(status)] += 1
        self._seconds.observe(seconds, {"route": route})

    def ready(self, works: bool) -> None:
        """Publish whether requests can be served."""
        self._ready.set(int(works))

    def publish(self, calls: SearchCalls) -> None:
        """Publish what was counted."""
        self._waiting.set(calls.waiting)
        self._queries.follow(calls.queries)
        self._calls.follow(calls.calls)
        for (route, method, status), count in self._counts.copy().items():
            self._requests.follow(count, route=route, method=method, status=str(status))


class EncoderMetrics:
    """What an Encoder's batcher has waiting and has done, and what its cache spared it."""

    def __init__(self) -> None:
        self._queued = Gauge(
            "embeddings_encoder_queued_tokens", "Tokens that wait to be encoded.", ("priority",)
        )
        self._seconds = Histogram(
            "embeddings_encoder_call_seconds",
            "Time until all texts of a call have their vectors, waiting included.",
            LATENCY_BOUNDARIES_S,
            ("priority",),
        )
        self._cache_hits = Total(
            "embeddings_query_cache_hits_total", "Queries whose vector was in the cache."
        )
        self._cache_misses = Total(
            "embeddings_query_cache_misses_total", "Queries that had to be encoded."
        )
        totals = {
            "batches": "Micro-batches that were encoded.",
            "rows": "Texts that got a vector.",
            "duplicate_rows": "Texts that shared the place of an equal one in a micro-batch.",
            "remembered_rows": "Texts that had been encoded a moment ago, and were sent again.",
            "useful_tokens": "Tokens that were encoded, without padding.",
            "padded_tokens": "Tokens that the forward passes handled, padding included.",
            "truncated_rows": "Texts that were cut at the model's token limit.",
            "overloaded_calls": "Calls that were refused because too much waited.",
            "failed_batches": "Micro-batches that failed.",
            "encode_seconds": "Seconds spent in forward passes.",
            "tokenize_seconds": "Seconds that calls waited for their tokens.",
        }
        self._totals = {
            name: Total(f"embeddings_encoder_{name}_total", description)
            for name, description in totals.items()
        }

    def encoded(self, priority: Priority, seconds: float) -> None:
        """Observe a call's wait for its vectors."""
        self._seconds.observe(seconds, {"priority": priority.name.lower()})

    def publish(self, stats: BatcherStats, cache: CacheStats) -> None:
        """Publish what a batcher and the cache before it counted."""
        self._cache_hits.follow(cache.hits)
        self._cache_misses.follow(cache.misses)
        self._queued.set(stats.queued_query_tokens, tags={"priority": "query"})
        self._queued.set(stats.queued_bulk_tokens, tags={"priority": "bulk"})
        for name, total in self._totals.items():
            total.follow(getattr(stats, name))


class IndexMetrics:
    """What the Index holds, what state its folder is in, and how fast it searches."""

    def __init__(self) -> None:
        kind = ("embedding_type",)
        self._vectors = Gauge("embeddings_index_vectors", "Vectors that can be found.", kind)
        self._commit_id = Gauge("embeddings_store_commit_id", "Commits that the store has.")
        self._last_sequence = Gauge(
            "embeddings_store_last_sequence", "The highest sequence number of a row so far."
        )
        self._damaged = Gauge("embeddings_store_damaged", "1 if the store is damaged, else 0.")
        self._damaged_rows = Gauge(
            "embeddings_store_damaged_rows", "Rows that are known to be damaged or lost."
        )
        self._salvaged_rows = Gauge(
            "embeddings_salvage_rows", "Intact rows of a damaged store, with EMBEDDINGS_SALVAGE."
        )
        self._rebuilt = Total(
            "embeddings_checkpoints_rebuilt_total",
            "Checkpoints that could not be used and were rebuilt from the store, by flaw.",
            *kind,
            "flaw",
        )
        self._checkpoint_sequence = Gauge(
            "embeddings_checkpoint_sequence", "The last row that the checkpoint knows of.", kind
        )
        self._checkpoint_age = Gauge(
            "embeddings_checkpoint_age_seconds", "How long ago the checkpoint was written.", kind
        )
        self._checkpoint_failures = Total(
            "embeddings_checkpoint_failures_total", "Checkpoints that could not be written."
        )
        self._migration_rows = Gauge(
            "embeddings_migration_rows",
            "Segments that need vectors of two models; 0 without a migration.",
        )
        self._migrated_rows = Gauge(
            "embeddings_migration_done_rows", "Segments that have vectors of two models."
        )
        self._recovery = Gauge("embeddings_recovery_seconds", "How long the last start took.")
        self._search = Histogram(
            "embeddings_index_search_seconds",
            "Time of a call to the index, with all its searches, waiting included.",
            LATENCY_BOUNDARIES_S,
        )

    def searched(self, seconds: float) -> None:
        """Observe a call's searches."""
        self._search.observe(seconds)

    def unusable(self) -> None:
        """Publish that the folder could not be opened because its store is damaged."""
        self._damaged.set(1)

    def publish(
        self,
        condition: IndexCondition,
        checkpoint_failures: int,
        migration: MigrationStatus | None,
    ) -> None:
        """Publish the state of an open index."""
        self._migration_rows.set(0 if migration is None else migration.rows)
        self._migrated_rows.set(0 if migration is None else migration.rows_done)
        for kind, count in condition.vectors.items():
            self._vectors.set(count, tags={"embedding_type": kind.value})
        self._commit_id.set(condition.commit_id)
        self._last_sequence.set(condition.last_sequence)
        self._damaged.set(0 if condition.damage is None else 1)
        self._damaged_rows.set(0 if condition.damage is None else condition.damage.rows)
        if condition.salvage is not None:
            self._salvaged_rows.set(condition.salvage.intact_rows)
        for kind, flaw in condition.rebuilt.items():
            self._rebuilt.follow(1, embedding_type=kind.value, flaw=flaw.name.lower())
        for kind, held in condition.checkpoints.items():
            tags = {"embedding_type": kind.value}
            self._checkpoint_sequence.set(held.last_sequence, tags=tags)
            self._checkpoint_age.set(max(0.0, time.time() - held.written_at), tags=tags)
        self._checkpoint_failures.follow(checkpoint_failures)
        self._recovery.set(condition.recovery_s)


class BackfillMetrics:
    """What a backfill job has done."""

    def __init__(self) -> None:
        self._stored = Total(
            "embeddings_backfill_stored_rows_total", "Rows that backfill jobs stored."
        )
        self._quarantined = Total(
            "embeddings_backfill_quarantined_rows_total",
            "Rows that backfill jobs could not store, and put aside.",
        )

    def publish(self, tally: Tally) -> None:
        """Publish a running job's numbers."""
        self._stored.follow(tally.stored)
        self._quarantined.follow(tally.quarantined)
