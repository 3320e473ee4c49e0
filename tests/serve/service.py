"""A service of its own for a test: `serve run` in processes that end with it."""

import contextlib
import os
import random
import re
import socket
from pathlib import Path
from subprocess import Popen
from types import TracebackType

import psutil
import requests
import yaml

from deployments import serve_process

ROOT = Path(__file__).parents[2]


class Service:
    """Starts the service on free ports of this machine, over a folder that outlives it."""

    def __init__(
        self,
        folder: Path,
        settings: dict | None = None,
        environment: dict | None = None,
        log_level: str = "INFO",
    ) -> None:
        self.folder = folder
        self.index_dir = folder / "index"
        self.log = folder / "serve.log"
        self.config = folder / "serve_config.yaml"
        http, stats, metrics, *self.extra_ports = free_ports(6)
        self.url = f"http://127.0.0.1:{http}"
        config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
        config["http_options"]["port"] = http
        config["logging_config"]["log_level"] = log_level
        for application in config["applications"]:
            application["args"] = {"faiss_index_dir": str(self.index_dir), **(settings or {})}
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(yaml.safe_dump(config))
        self.environment = {
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            "RAY_USAGE_STATS_ENABLED": "0",
            **(environment or {}),
        }
        self._child: Popen | None = None

    def begin(self) -> Popen:
        """Start without waiting until requests can be served."""
        self._child = serve_process.start(self.config, self.log, self.environment)
        return self._child

    def start(self) -> "Service":
        child = self.begin()
        try:
            serve_process.wait_until_ready(self.url, child, 120)
        except BaseException:
            self.stop()
            print(self.log.read_text()[-6000:])
            raise
        return self

    def stop(self) -> None:
        if self._child is not None:
            serve_process.stop(self._child)
            self._child = None

    @property
    def dashboard(self) -> str:
        """Where jobs are submitted."""
        found = re.search(r"dashboard at \S*?(http://[\d.]+:\d+)", self.log.read_text())
        assert found is not None
        return found[1]

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def __enter__(self) -> "Service":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def get(self, path: str, **arguments) -> requests.Response:
        return requests.get(self.url + path, timeout=60, **arguments)

    def post(self, path: str, body: dict) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=60)

    def delete(self, path: str) -> requests.Response:
        return requests.delete(self.url + path, timeout=60)

    def embed(self, media_item_id, segments: list[dict], kind: str = "transcript", **more) -> dict:
        body = {"media_item_id": media_item_id, "embedding_type": kind, "segments": segments}
        response = self.post("/embed", body | more)
        assert response.status_code == 200, response.text
        return response.json()

    def search(self, query: str, kind: str = "transcript", **more) -> list[dict]:
        response = self.post("/search", {"query": query, "embedding_type": kind, **more})
        assert response.status_code == 200, response.text
        return response.json()["results"]


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses, above those that Linux gives to whoever connects somewhere.

    One of those may be somebody's by the time that a service starts on it.
    """
    found: list[int] = []
    for port in random.sample(range(61_000, 65_536), 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found


def replica_pids(ancestor: int, deployment: str) -> set[int]:
    """The processes of a deployment's replicas, below the process that started Ray."""
    found = set()
    for process in psutil.Process(ancestor).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "".join(process.cmdline()[:1]).endswith(f":{deployment}"):
                found.add(process.pid)
    return found


def operator_environment() -> dict[str, str]:
    """What the guide tells an operator to type before `serve status`."""
    return {**os.environ, "RAY_AUTH_MODE": "token"}
