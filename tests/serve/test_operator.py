"""`ray start --head`, `serve deploy` and `serve status`, as an operator types them."""

import time

import pytest
import yaml

from tests.crash.checks import Checks
from tests.serve.cluster import cluster
from tests.serve.load import under_load
from tests.serve.service import replica_pids

TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """A cluster with both applications running."""
    settings = {"embeddings_timeout_s": TIMEOUT_S, "embeddings_max_top_k": Checks.MOST}
    with cluster(tmp_path_factory.mktemp("operator"), settings) as running:
        running.deploy()
        running.wait_for_healthy()
        yield running


def test_serve_status_shows_the_parts(deployed):
    applications = deployed.wait_for_healthy()
    assert {
        name: {each: d["status"] for each, d in application["deployments"].items()}
        for name, application in applications.items()
    } == {
        "index": {"Index": "HEALTHY"},
        "embeddings": {"Ingress": "HEALTHY", "Encoder": "HEALTHY"},
    }


def redeploy(cluster, changes):
    """Deploy with other settings for some applications."""
    config = yaml.safe_load(cluster.config.read_text())
    for application in config["applications"]:
        application["args"] |= changes.get(application["name"], {})
    cluster.config.write_text(yaml.safe_dump(config))
    cluster.deploy()


@pytest.mark.parametrize(
    ("application", "replaced"), [("index", ["Index"]), ("embeddings", ["Ingress", "Encoder"])]
)
def test_a_new_deployment_under_load_costs_no_request(deployed, application, replaced):
    """Clients may have to wait or to try again; each answer is right, and nothing is lost."""
    before = {
        each: replica_pids(deployed.head.pid, each) for each in ("Index", "Ingress", "Encoder")
    }
    assert all(len(pids) == 1 for pids in before.values())
    port = int(deployed.url.rsplit(":", 1)[1])
    with under_load(port, TIMEOUT_S, seed=len(application)) as report:
        time.sleep(1)
        # Replicas get their settings when they start, so a new value replaces them.
        redeploy(deployed, {application: {"embeddings_max_body_bytes": 40_000_000}})
        deadline = time.monotonic() + 90
        while any(replica_pids(deployed.head.pid, each) & before[each] for each in replaced):
            assert time.monotonic() < deadline, "the old replicas are still there"
            time.sleep(0.2)
        deployed.wait_for_healthy()
        time.sleep(1)
    print(report.table())
    assert report.violations == []
    assert {status.split()[-1] for status in report.statuses} <= {"200", "503"}
    kept = [each for each in before if each not in replaced]
    assert all(replica_pids(deployed.head.pid, each) == before[each] for each in kept)


def test_a_folder_that_cannot_be_written_to_is_named_and_another_deployment_helps(deployed):
    deployed.embed(6, [{"id": 1, "text": "kept through a wrong setting"}])
    redeploy(deployed, {"index": {"faiss_index_dir": "/proc/nowhere"}})
    reason = ""
    deadline = time.monotonic() + 90
    while not reason.startswith("Deployment failed"):
        assert time.monotonic() < deadline, reason
        time.sleep(0.5)
        reason = deployed.get("/health").json().get("reason") or ""
    assert reason.startswith("Deployment failed: Index: StoreUnwritable: Cannot open /proc/nowhere")
    assert "Check its permissions, mount options and disk" in reason
    refused = deployed.post("/search", {"query": "kept through a wrong setting"})
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["Retry-After"]) > 0
    redeploy(deployed, {"index": {"faiss_index_dir": str(deployed.index_dir)}})
    deployed.wait_for_healthy()
    found = deployed.search("kept through a wrong setting", top_k=1)
    assert found[0]["metadata"]["media_item_id"] == 6


def test_serve_shutdown_keeps_every_vector(deployed):
    deployed.embed(5, [{"id": 1, "text": "kept across a shutdown"}])
    before = deployed.search("anything", top_k=1000)
    assert before
    assert deployed.operate("serve", "shutdown", "-y").returncode == 0
    deployed.deploy()
    deployed.wait_for_healthy()
    assert deployed.search("anything", top_k=1000) == before
