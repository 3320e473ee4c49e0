"""Nodes of a cluster die under load and are replaced; answers stay right and nothing is lost."""

import contextlib
import time

import psutil
import pytest

from tests.crash.checks import Checks
from tests.serve.cluster import cluster, wait_for, worker_node
from tests.serve.load import CLIENTS, under_load
from tests.serve.service import replica_pids

TIMEOUT_S = 20.0
INDEX_NODE = ("--num-cpus=1", '--resources={"index_volume": 1}')
ENCODER_NODE = ("--num-cpus=1", '--resources={"work": 1}')


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A head that only directs, with a node for the index and one for the rest to come."""
    settings = {
        "faiss_index_resource": "index_volume",
        "embeddings_timeout_s": TIMEOUT_S,
        "embeddings_max_top_k": Checks.MOST,
    }
    with cluster(tmp_path_factory.mktemp("nodes"), settings, cpus=0) as running:
        yield running


def kill(node):
    """SIGKILL to a node's processes, as when its machine is switched off."""
    family = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=10)


def test_nodes_die_under_load_and_are_replaced(nodes):
    port = int(nodes.url.rsplit(":", 1)[1])
    with contextlib.ExitStack() as running:
        index_node = running.enter_context(worker_node(nodes, *INDEX_NODE))
        encoder_node = running.enter_context(worker_node(nodes, *ENCODER_NODE))
        nodes.deploy()
        nodes.wait_for_healthy()
        assert len(replica_pids(index_node.pid, "Index")) == 1
        with under_load(port, TIMEOUT_S, seed=11) as report:
            time.sleep(2)
            kill(encoder_node)
            encoder_node = running.enter_context(worker_node(nodes, *ENCODER_NODE))
            wait_until_served(nodes)
            time.sleep(2)
            kill(index_node)
            index_node = running.enter_context(worker_node(nodes, *INDEX_NODE))
            wait_until_served(nodes)
            time.sleep(2)
        assert len(replica_pids(index_node.pid, "Index")) == 1
        print(report.table())
        assert [each for each in report.violations if each["kind"] != "status"] == []
        # Serve's own answer for what a dead Ingress was answering: one request a client.
        unanswered = [each for each in report.violations if each["kind"] == "status"]
        assert len(unanswered) <= CLIENTS + 2
        assert all("500" in each["detail"] for each in unanswered)


def wait_until_served(nodes):
    wait_for(lambda: nodes.get("/health").status_code, lambda status: status == 200)
