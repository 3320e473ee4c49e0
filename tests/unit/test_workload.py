"""What encoders report of their work, and how many of them Serve makes of it."""

import asyncio
from types import SimpleNamespace

import pytest
from ray.serve.config import AutoscalingContext

from deployments import scaling
from deployments.core.encoding.batcher import BatcherStats, Priority, TokenBatcher
from deployments.core.encoding.workload import Workload
from tests.fakes import HeldTextEncoder


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_busy_is_the_share_of_the_time_since_the_last_read():
    stats, clock = BatcherStats(busy_seconds=7.0, useful_tokens=70), Clock()
    workload = Workload(lambda: stats, clock)
    clock.now += 4
    stats.busy_seconds += 1
    assert workload.read() == {"busy": 0.25, "queued_seconds": 0}
    clock.now += 2
    stats.busy_seconds += 2
    assert workload.read()["busy"] == 1
    clock.now += 2
    assert workload.read()["busy"] == 0


def test_two_reads_at_once_tell_of_no_work():
    workload = Workload(BatcherStats, Clock())
    assert workload.read() == {"busy": 0, "queued_seconds": 0}


def test_what_waits_is_reported_as_it_is():
    stats = BatcherStats(queued_seconds=1.5)
    assert Workload(lambda: stats, Clock()).read()["queued_seconds"] == 1.5


def test_a_batcher_is_busy_while_it_encodes_and_only_then():
    async def run():
        encoder = HeldTextEncoder()
        batcher = TokenBatcher(encoder, max_batch_tokens=64, max_queued_tokens=1000)
        before = batcher.stats().busy_seconds
        call = asyncio.create_task(batcher.encode(["a b c"], "query", Priority.QUERY))
        await asyncio.to_thread(encoder.wait_until_begun)
        during = [batcher.stats().busy_seconds]
        await asyncio.sleep(0.01)
        during.append(batcher.stats().busy_seconds)
        encoder.let_end()
        await call
        after = [batcher.stats().busy_seconds]
        await asyncio.sleep(0.01)
        after.append(batcher.stats().busy_seconds)
        await batcher.close()
        return before, during, after

    before, during, after = asyncio.run(run())
    assert before == 0
    assert 0 < during[0] < during[1] <= after[0]
    assert after[0] == after[1]


def test_queries_and_bulk_at_the_same_time_are_busy_once():
    async def run():
        queries, bulk = HeldTextEncoder(), HeldTextEncoder()
        batcher = TokenBatcher(
            queries, bulk_encoder=bulk, max_batch_tokens=64, max_queued_tokens=1000
        )
        calls = [
            asyncio.create_task(batcher.encode(["a"], "query", Priority.QUERY)),
            asyncio.create_task(batcher.encode(["b"], "document", Priority.BULK)),
        ]
        for encoder in (queries, bulk):
            await asyncio.to_thread(encoder.wait_until_begun)
        await asyncio.sleep(0.02)
        queries.let_end()
        bulk.let_end()
        await asyncio.gather(*calls)
        stats = batcher.stats()
        await batcher.close()
        return stats

    stats = asyncio.run(run())
    assert stats.busy_seconds < stats.encode_seconds < 2 * stats.busy_seconds + 1e-3


def series(*values, step_s=1.0):
    return [SimpleNamespace(timestamp=50 + step_s * i, value=v) for i, v in enumerate(values)]


def context_of(replicas, reported, target=None):
    return AutoscalingContext(
        deployment_id=None,
        deployment_name="Encoder",
        app_name="embeddings",
        current_num_replicas=replicas,
        target_num_replicas=replicas if target is None else target,
        running_replicas=[],
        total_num_requests=0,
        total_queued_requests=0,
        aggregated_metrics={},
        raw_metrics=reported,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=8,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=None,
        config=scaling.scale_encoders(least=1, most=8, scale_down_s=60),
    )


@pytest.mark.parametrize(
    ("busy", "queued_s", "needed"),
    [
        ([0.0], [0.0], 0),
        ([0.7], [0.0], 1),
        ([1.0], [0.1], 1.0 / 0.7),
        ([0.9, 0.5], [0.1, 0.1], 2),
        ([0.1], [1.0], 4),
        ([0.7, 0.7], [0.25, 1.0], 5),
    ],
)
def test_enough_encoders_that_none_is_busy_all_the_time_and_little_waits(busy, queued_s, needed):
    reported = {
        "busy": {replica: series(value) for replica, value in enumerate(busy)},
        "queued_seconds": {replica: series(value) for replica, value in enumerate(queued_s)},
    }
    wanted, state = scaling.encoders_for_work(context_of(len(busy), reported))
    assert wanted == pytest.approx(needed)
    assert state == {}


def test_the_last_seconds_count():
    old_and_new = series(0.0, 0.0, 0.0, 0.7, 1.4, step_s=3)
    wanted, _ = scaling.encoders_for_work(context_of(1, {"busy": {1: old_and_new}}))
    assert wanted == pytest.approx((0.7 + 1.4) / 2 / 0.7)


def test_without_a_report_nothing_is_asked_for_beyond_the_least():
    assert scaling.encoders_for_work(context_of(1, {"busy": {1: []}})) == (0, {})


def test_the_policy_leaves_the_first_replica_to_serve():
    assert scaling.encoders_for_work(context_of(0, {}, target=1)) == (1, {})


def test_serve_can_take_the_policy_into_its_controller():
    policy = scaling.scale_encoders(least=0, most=3, scale_down_s=5).policy
    taken = policy.get_policy()
    assert taken(context_of(1, {"busy": {1: series(0.35)}})) == (0.5, {})
