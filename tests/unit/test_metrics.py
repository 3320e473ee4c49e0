import threading
from typing import Any

import pytest
from ray.util import metrics as ray_metrics
from storage_samples import CLIP, FRAME, TRANSCRIPT

from deployments import metrics
from deployments.core.damage import Damage, Salvage
from deployments.core.encoding.batcher import BatcherStats
from deployments.core.encoding.query_cache import CacheStats
from deployments.core.index.index_condition import HeldCheckpoint, IndexCondition
from deployments.core.storage.migration_record import MigrationRecord, MigrationStatus, Phase
from deployments.core.vectors.checkpoint import Flaw

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def series(monkeypatch: pytest.MonkeyPatch) -> Series:
    """What was published, by name and tags; Ray's own classes still check names and tags."""
    published: Series = {}

    def key(metric: Any, tags: dict[str, str] | None) -> tuple[str, frozenset[tuple[str, str]]]:
        return metric.info["name"], frozenset((tags or {}).items())

    class Gauge(ray_metrics.Gauge):
        def set(self, value: float, tags: dict[str, str] | None = None) -> None:
            super().set(value, tags)
            published[key(self, tags)] = value

    class Counter(ray_metrics.Counter):
        def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
            super().inc(value, tags)
            published[key(self, tags)] = published.get(key(self, tags), 0.0) + value

    class Histogram(ray_metrics.Histogram):
        def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
            super().observe(value, tags)
            published[key(self, tags)] = value

    for each in (Gauge, Counter, Histogram):
        monkeypatch.setattr(metrics, each.__name__, each)
    return published


def value(series: Series, name: str, **tags: str) -> float | None:
    return series.get((name, frozenset(tags.items())))


def test_the_batcher_s_numbers_are_published_once_each(series: Series) -> None:
    encoder = metrics.EncoderMetrics()
    stats = BatcherStats(queued_query_tokens=3, queued_bulk_tokens=500, batches=2, rows=30)
    for hits in (1, 5):
        encoder.publish(stats, CacheStats(hits, misses=2))
    assert value(series, "embeddings_encoder_queued_tokens", priority="query") == 3
    assert value(series, "embeddings_encoder_queued_tokens", priority="bulk") == 500
    assert value(series, "embeddings_encoder_rows_total") == 30
    assert value(series, "embeddings_query_cache_hits_total") == 5
    assert value(series, "embeddings_query_cache_misses_total") == 2
    assert value(series, "embeddings_encoder_duplicate_rows_total") is None
    encoder.publish(
        BatcherStats(batches=3, rows=31, truncated_rows=1, encode_seconds=0.25, overloaded_calls=4),
        CacheStats(),
    )
    assert value(series, "embeddings_encoder_queued_tokens", priority="bulk") == 0
    assert value(series, "embeddings_encoder_batches_total") == 3
    assert value(series, "embeddings_encoder_rows_total") == 31
    assert value(series, "embeddings_encoder_truncated_rows_total") == 1
    assert value(series, "embeddings_encoder_encode_seconds_total") == 0.25
    assert value(series, "embeddings_encoder_overloaded_calls_total") == 4


def test_the_index_condition_is_published(series: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics.time, "time", lambda: 1060.0)
    index = metrics.IndexMetrics()
    condition = IndexCondition(
        {TRANSCRIPT: 5, FRAME: 2, CLIP: 0},
        commit_id=9,
        last_sequence=8,
        recovery_s=1.5,
        rebuilt={FRAME: Flaw.CHECKSUM},
        checkpoints={TRANSCRIPT: HeldCheckpoint(7, 1000.0)},
    )
    index.publish(condition, checkpoint_failures=0, migration=None)
    assert value(series, "embeddings_migration_rows") == 0
    record = MigrationRecord(Phase.RUNNING, True, 0.0)
    migration = MigrationStatus(record, {}, {}, rows_done=3, rows=7)
    index.publish(condition, checkpoint_failures=2, migration=migration)
    assert value(series, "embeddings_migration_rows") == 7
    assert value(series, "embeddings_migration_done_rows") == 3
    index.searched(0.004)
    assert value(series, "embeddings_index_vectors", embedding_type="transcript") == 5
    assert value(series, "embeddings_index_vectors", embedding_type="clip") == 0
    assert value(series, "embeddings_store_commit_id") == 9
    assert value(series, "embeddings_store_last_sequence") == 8
    assert value(series, "embeddings_recovery_seconds") == 1.5
    assert value(series, "embeddings_store_damaged") == 0
    assert value(series, "embeddings_store_damaged_rows") == 0
    assert value(series, "embeddings_salvage_rows") is None
    rebuilt = "embeddings_checkpoints_rebuilt_total"
    assert value(series, rebuilt, embedding_type="frame", flaw="checksum") == 1
    assert value(series, "embeddings_checkpoint_sequence", embedding_type="transcript") == 7
    assert value(series, "embeddings_checkpoint_age_seconds", embedding_type="transcript") == 60
    assert value(series, "embeddings_checkpoint_failures_total") == 2
    assert value(series, "embeddings_index_search_seconds") == 0.004


def test_damage_and_salvage_are_published(series: Series) -> None:
    index = metrics.IndexMetrics()
    index.unusable()
    assert value(series, "embeddings_store_damaged") == 1
    index.publish(
        IndexCondition(
            {CLIP: 3}, 1, 1, 0.1, damage=Damage("d", 4), salvage=Salvage(3, 4, True, 0, ())
        ),
        checkpoint_failures=0,
        migration=None,
    )
    assert value(series, "embeddings_store_damaged") == 1
    assert value(series, "embeddings_store_damaged_rows") == 4
    assert value(series, "embeddings_salvage_rows") == 3


def test_publishing_goes_on_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    calls = threading.Semaphore(0)

    def publish() -> None:
        calls.release()
        raise ValueError("once")

    publisher = metrics.Publisher(publish, period_s=0.001)
    for _ in range(3):
        assert calls.acquire(timeout=30)
    publisher.close()
    assert "could not be published" in caplog.text
