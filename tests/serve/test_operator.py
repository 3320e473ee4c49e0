"""`ray start --head`, `serve deploy` and `serve status`, as an operator types them."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.crash.checks import Checks
from tests.serve.load import under_load
from tests.serve.service import Service, operator_environment, replica_pids

BIN = Path(sys.executable).parent
TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray head of its own, ended by the numbers of its processes."""
    settings = {"embeddings_timeout_s": TIMEOUT_S, "embeddings_max_top_k": Checks.MOST}
    service = Service(tmp_path_factory.mktemp("operator"), settings)
    port, dashboard, client = service.extra_ports
    environment = {**operator_environment(), **service.environment}
    command = [BIN / "ray", "start", "--head", "--block", f"--port={port}"]
    command += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    command += ["--num-cpus=2", "--disable-usage-stats"]
    command += ["--dashboard-agent-listen-port=0", f"--temp-dir={service.folder.parent}/r"]
    with service.log.open("wb") as log:
        head = subprocess.Popen(
            [str(part) for part in command],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    service.head = head
    environment["RAY_ADDRESS"] = f"127.0.0.1:{port}"
    environment["RAY_DASHBOARD_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
    service.operator = environment
    try:
        wait_for_dashboard(service)
        yield service
    finally:
        family = psutil.Process(head.pid).children(recursive=True)
        head.terminate()
        try:
            head.wait(40)
        except subprocess.TimeoutExpired:
            head.kill()
            head.wait()
        for process in family:
            if process.is_running():
                process.kill()


def wait_for_dashboard(cluster):
    deadline = time.monotonic() + 60
    while operate(cluster, "serve", "status").returncode != 0:
        assert time.monotonic() < deadline, cluster.log.read_text()
        time.sleep(0.5)


def operate(cluster, *command):
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        env=cluster.operator,
        capture_output=True,
        text=True,
        timeout=120,
    )


def wait_for_healthy(cluster):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        status = operate(cluster, "serve", "status")
        if status.returncode == 0:
            applications = yaml.safe_load(status.stdout)["applications"]
            if applications and all(a["status"] == "RUNNING" for a in applications.values()):
                return applications
        time.sleep(1)
    raise AssertionError(f"not healthy: {status.stdout}\n{status.stderr}")


@pytest.fixture(scope="module")
def deployed(cluster):
    """The cluster with both applications running."""
    done = operate(cluster, "serve", "deploy", str(cluster.config))
    assert done.returncode == 0, done.stderr
    wait_for_healthy(cluster)
    return cluster


def test_serve_status_shows_the_parts(deployed):
    applications = wait_for_healthy(deployed)
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
    done = operate(cluster, "serve", "deploy", str(cluster.config))
    assert done.returncode == 0, done.stderr


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
        wait_for_healthy(deployed)
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
    wait_for_healthy(deployed)
    found = deployed.search("kept through a wrong setting", top_k=1)
    assert found[0]["metadata"]["media_item_id"] == 6


def test_serve_shutdown_keeps_every_vector(deployed):
    cluster = deployed
    cluster.embed(5, [{"id": 1, "text": "kept across a shutdown"}])
    before = cluster.search("anything", top_k=1000)
    assert before
    assert operate(cluster, "serve", "shutdown", "-y").returncode == 0
    assert operate(cluster, "serve", "deploy", str(cluster.config)).returncode == 0
    wait_for_healthy(cluster)
    assert cluster.search("anything", top_k=1000) == before
