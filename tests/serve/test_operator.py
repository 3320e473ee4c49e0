"""`ray start --head`, `serve deploy` and `serve status`, as an operator types them."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.serve.service import Service, operator_environment

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray head of its own, ended by the numbers of its processes."""
    service = Service(tmp_path_factory.mktemp("operator"))
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


def test_deploy_status_redeploy(cluster):
    deployed = operate(cluster, "serve", "deploy", str(cluster.config))
    assert deployed.returncode == 0, deployed.stderr
    applications = wait_for_healthy(cluster)
    assert {
        name: {each: d["status"] for each, d in application["deployments"].items()}
        for name, application in applications.items()
    } == {
        "index": {"Index": "HEALTHY"},
        "embeddings": {"Ingress": "HEALTHY", "Encoder": "HEALTHY"},
    }
    cluster.embed(5, [{"id": 1, "text": "kept across a new deployment"}])
    before = cluster.search("kept across a new deployment")

    config = yaml.safe_load(cluster.config.read_text())
    for application in config["applications"]:
        application["args"]["embeddings_max_top_k"] = 7
    cluster.config.write_text(yaml.safe_dump(config))
    assert operate(cluster, "serve", "deploy", str(cluster.config)).returncode == 0
    deadline = time.monotonic() + 120
    while cluster.post("/search", {"query": "x", "top_k": 8}).status_code != 422:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    wait_for_healthy(cluster)
    assert cluster.search("kept across a new deployment", top_k=7) == before


def test_serve_shutdown_keeps_every_vector(cluster):
    assert operate(cluster, "serve", "deploy", str(cluster.config)).returncode == 0
    wait_for_healthy(cluster)
    before = cluster.search("anything", top_k=7)
    assert before
    assert operate(cluster, "serve", "shutdown", "-y").returncode == 0
    assert operate(cluster, "serve", "deploy", str(cluster.config)).returncode == 0
    wait_for_healthy(cluster)
    assert cluster.search("anything", top_k=7) == before
