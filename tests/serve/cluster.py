"""A Ray cluster of its own for a test, made and deployed to as the guide tells an operator."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import yaml

from tests.serve.service import Service, operator_environment

BIN = Path(sys.executable).parent
ALL_NODES = ("--disable-usage-stats", "--dashboard-agent-listen-port=0")


class Cluster(Service):
    """A head with the service's configuration file; deployed when asked to."""

    head: subprocess.Popen[bytes]
    operator: dict[str, str]
    """The environment of an operator's commands."""

    def operate(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Ray's as an operator."""
        return subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            env=self.operator,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def deploy(self) -> None:
        """`serve deploy`, which doesn't wait."""
        done = self.operate("serve", "deploy", str(self.config))
        assert done.returncode == 0, done.stderr

    def status(self) -> dict:
        """The applications of `serve status`."""
        done = self.operate("serve", "status")
        assert done.returncode == 0, done.stderr
        return yaml.safe_load(done.stdout)["applications"]

    def replicas(self, deployment: str) -> int:
        """How many of a deployment of `embeddings` run, as `serve status` tells."""
        deployments = self.status()["embeddings"]["deployments"]
        return deployments[deployment]["replica_states"].get("RUNNING", 0)

    def wait_for_healthy(self) -> dict:
        """The applications, once all of them run."""
        return wait_for(
            self.status,
            lambda applications: (
                applications and all(a["status"] == "RUNNING" for a in applications.values())
            ),
        )


@contextmanager
def cluster(
    folder: Path, settings: dict, environment: dict | None = None, cpus: int = 2
) -> Iterator[Cluster]:
    """A Ray head, ended by the numbers of its processes."""
    service = Cluster(folder, settings, environment)
    port, dashboard, client = service.extra_ports
    service.operator = {
        **operator_environment(),
        **service.environment,
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    command = ["--head", f"--port={port}", f"--dashboard-port={dashboard}"]
    command += [f"--ray-client-server-port={client}", f"--temp-dir={folder.parent}/r"]
    with ray_node(service, [*command, f"--num-cpus={cpus}"]) as service.head:
        wait_for(lambda: service.operate("serve", "status"), lambda done: done.returncode == 0)
        yield service


@contextmanager
def worker_node(service: Cluster, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """One more node of a cluster, on the same machine."""
    with ray_node(service, [f"--address={service.operator['RAY_ADDRESS']}", *options]) as node:
        yield node


@contextmanager
def ray_node(service: Cluster, options: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**service.operator}
    # It would make `ray start` join what it is about to begin.
    environment.pop("RAY_ADDRESS")
    with service.log.open("ab") as log:
        node = subprocess.Popen(
            [str(BIN / "ray"), "start", "--block", *ALL_NODES, *options],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield node
    finally:
        # Ray would wait half a minute for replicas that leave.
        family = psutil.Process(node.pid).children(recursive=True) if node.poll() is None else []
        node.kill()
        node.wait()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def wait_for(read, good, timeout_s: float = 120.0):
    """What `read` returns, once it is good."""
    deadline = time.monotonic() + timeout_s
    while not good(seen := read()):
        assert time.monotonic() < deadline, seen
        time.sleep(0.5)
    return seen
