"""The service as a process of this machine: `serve run` on a Ray of its own, started and ended.

With settings of Ray's own that suit one machine, and an end that leaves no process behind.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from deployments.core.errors import DeploymentFailed, SettingsError, StoreDamaged
from deployments.core.exposure import check_exposure
from deployments.core.settings import Settings

RAY_ENVIRONMENT = {
    # Serve's fast proxy and transport; Ray wants both or neither.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Ray's workers run at niceness 15 else, behind whatever else this machine does.
    "RAY_worker_niceness": "0",
    # Of one call between replicas, instead of 4 MiB: a request of many long segments is one call.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(256 * 1024 * 1024),
    # How soon load makes more replicas; 10 s else.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    # A cluster keeps a leaving replica reachable for 30 s. Here nobody else routes to it, and
    # Ctrl-C would wait for it, and cut the index off before it has closed its folder.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    # The fast transport keeps log lines back, in memory and off the console.
    "RAY_SERVE_LOG_TO_STDERR": "1",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    # HAProxy's statistics and metrics on loopback, and time limits for slow clients.
    "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(sys.executable).with_name("embeddings-haproxy")),
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
    # Times 5 s without an answer, after which Ray's own proxy takes over, which is slower.
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "6",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.request_ids.middlewares",
}

# Between the ports that Ray's workers use and those that Linux gives to clients.
FIRST_PORT = 20_000
PORT_BLOCK = 20
PORT_BLOCKS = 600
START_TIMEOUT_S = 300

_A_CONFIG = "take the repository's serve_config.yaml as a pattern"


class StartError(Exception):
    """The service didn't come up."""


def read_config(config: Path) -> dict[str, Any]:
    """A configuration file's content, with `http_options` and a list of `applications`.

    Raises StartError for what isn't one.
    """
    try:
        document = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{config} can't be read: {error}") from error
    except yaml.YAMLError as error:
        raise StartError(f"{config} isn't YAML: {error}") from error
    if not isinstance(document, dict):
        raise StartError(f"{config} is no configuration of Serve: {_A_CONFIG}")
    applications = document.get("applications")
    if (
        not applications
        or not isinstance(applications, list)
        or not all(isinstance(each, dict) for each in applications)
    ):
        raise StartError(f"{config} has no list of `applications`: {_A_CONFIG}")
    document["http_options"] = document.get("http_options") or {}
    for name, options in [
        ("http_options", document["http_options"]),
        *(("args", each.get("args") or {}) for each in applications),
    ]:
        if not isinstance(options, dict):
            raise StartError(f"`{name}` in {config} must be a mapping, not {options!r}")
    return document


def url_of(config: Path) -> str:
    """Where the service of a configuration file answers on this machine. Raises StartError."""
    http = read_config(config)["http_options"]
    host = http.get("host", "127.0.0.1")
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{http.get('port', 8000)}"


def check_port(url: str) -> None:
    """Raise StartError if somebody answers there, who would be taken for this service."""
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise StartError(f"{url} is no address, as `http_options` say: {error}") from error
    with socket.socket() as probe:
        if probe.connect_ex((address.host, address.port or 80)) == 0:
            raise StartError(
                f"{url} is in use: a service may be running already. Stop it, or choose another "
                "port, in serve_config.yaml or by `embeddings-service serve --port …`."
            )


def start(
    config: Path, log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `serve run` on a Ray of its own; what it prints is appended to `log`.

    Raises StartError for settings that Serve would refuse only later, and then keep running.
    """
    _check_settings(config)
    log.parent.mkdir(parents=True, exist_ok=True)
    serve = Path(sys.executable).with_name("serve")
    with log.open("ab") as output:
        return subprocess.Popen(
            [serve, "run", "--address", "local", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **RAY_ENVIRONMENT,
                **_free_ports(),
                **os.environ,
                "PATH": _path_with_this_python(),
                **(environment or {}),
            },
            # The terminal's Ctrl-C is for this process only, which then stops the child in order.
            start_new_session=True,
            preexec_fn=_accept_interrupts,
        )


def _path_with_this_python() -> str:
    """A search path on which a job's `python` is the one that serves, activated or not."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _free_ports() -> dict[str, str]:
    """Ports for what Ray would put on fixed ones, where a second Ray would find them taken.

    With the fast proxy each replica listens on a port of its own. Another service's replicas on
    the same ones would get this service's requests.
    """
    # At random: two services that start at the same time can't see each other's choice.
    first = FIRST_PORT + PORT_BLOCK * random.randrange(PORT_BLOCKS)
    *replicas, stats, metrics, http, grpc = range(first, first + PORT_BLOCK)
    return {
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(replicas[0]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(replicas[-1]),
        # Where HAProxy sends requests while no replica is there: with two services on one
        # port, to the other one.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(grpc),
    }


def _check_settings(config: Path) -> None:
    document = read_config(config)
    for application in document["applications"]:
        try:
            settings = Settings.load(application.get("args"))
            check_exposure(settings, document["http_options"].get("host"))
        except SettingsError as error:
            raise StartError(str(error)) from None


def _accept_interrupts() -> None:
    """Undo what a shell does to the jobs that it starts in the background: ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_until_ready(
    url: str,
    child: subprocess.Popen[bytes],
    timeout_s: float = START_TIMEOUT_S,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Return when a request can be served. Raises StartError if the child ends or time is up.

    `headers` hold the API key where there is one; without it nobody hears why it isn't ready.
    """
    deadline = time.monotonic() + timeout_s
    reason = "no answer"
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise StartError("The service ended while it started.")
        with contextlib.suppress(httpx.TransportError, ValueError, KeyError):
            response = httpx.get(f"{url}/health/ready", timeout=10, headers=headers)
            if response.status_code == httpx.codes.OK:
                return
            reason = response.json()["reason"] or reason
            if reason.startswith((DeploymentFailed.title, StoreDamaged.title)):
                raise StartError(reason)
        time.sleep(0.2)
    raise StartError(f"The service isn't ready after {timeout_s:g} s: {reason}")


def stop(child: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it started, in order if it can, within about 9 s if not."""
    family: set[psutil.Process] = set()
    for number, patience_s in ((signal.SIGINT, 6.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 1.0)):
        if child.poll() is not None:
            break
        child.send_signal(number)
        deadline = time.monotonic() + patience_s
        while child.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(psutil.NoSuchProcess):
                # Noted while their parents live: later nothing would tell whose they were.
                family.update(psutil.Process(child.pid).children(recursive=True))
            time.sleep(0.2)
    for process in family:
        # psutil compares start times, so a number that went to another process is spared.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
