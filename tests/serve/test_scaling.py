"""Replicas come and go with the work, as `serve status` shows it."""

import threading
from contextlib import contextmanager

import psutil
import pytest

from tests.bench.load import Connection
from tests.crash.texts import sentences
from tests.serve.cluster import cluster, wait_for, worker_node
from tests.serve.service import replica_pids

CLIENTS = 48


@pytest.fixture(scope="module")
def scaling(tmp_path_factory):
    """A cluster without a GPU whose configuration allows for one."""
    settings = {
        "embeddings_workers": 2,
        "embeddings_gpu_workers": 1,
        "embeddings_scale_down_s": 3,
        "embeddings_encoder_threads": 1,
        "embeddings_query_cache": 0,
    }
    soon = {
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    }
    with cluster(tmp_path_factory.mktemp("scaling"), settings, soon, cpus=4) as running:
        running.deploy()
        running.wait_for_healthy()
        running.embed(1, [{"id": 1, "text": "Support and resistance levels"}])
        yield running


@contextmanager
def searches(service):
    """Clients that search without a pause; gives the list of statuses, which grows."""
    ended = threading.Event()
    statuses = []

    def search(number):
        connection = Connection(service.url)
        for text in sentences(10_000, seed=number):
            if ended.is_set():
                break
            status, _ = connection.post("/search", b'{"query": "%s"}' % text.encode())
            statuses.append(status)
        connection.close()

    threads = [threading.Thread(target=search, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_encoders_follow_the_load_up_to_their_number_and_back(scaling):
    assert scaling.replicas("Encoder") == 1
    with searches(scaling) as statuses:
        wait_for(lambda: scaling.replicas("Encoder"), lambda count: count == 2, 60)
        assert scaling.status()["embeddings"]["status"] == "RUNNING"
    assert set(statuses) == {200}
    wait_for(lambda: scaling.replicas("Encoder"), lambda count: count == 1, 90)


def test_the_gpu_encoders_wait_for_a_gpu_and_then_take_the_calls(scaling):
    assert scaling.replicas("GpuEncoder") == 0
    assert scaling.search("support", top_k=1)[0]["metadata"]["segment_id"] == 1
    assert scaling.status()["embeddings"]["status"] == "RUNNING"
    # Ray takes anybody's word for how many there are.
    with worker_node(scaling, "--num-cpus=1", "--num-gpus=1") as node:
        (gpu_encoder,) = wait_for(lambda: replica_pids(node.pid, "GpuEncoder"), len, 90)
        wait_for(lambda: scaling.replicas("GpuEncoder"), lambda count: count == 1, 90)
        encoders = replica_pids(scaling.head.pid, "Encoder")
        with searches(scaling) as statuses:
            used = cpu_seconds({gpu_encoder}), cpu_seconds(encoders)
            wait_for(lambda: len(statuses), lambda count: count > 1500)
            used = cpu_seconds({gpu_encoder}) - used[0], cpu_seconds(encoders) - used[1]
            psutil.Process(gpu_encoder).kill()
            answered = len(statuses)
            wait_for(lambda: len(statuses), lambda count: count > answered + 200)
        assert set(statuses) == {200}
        assert used[0] > used[1], "the encoder on a GPU goes first"


def cpu_seconds(pids):
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)
