"""Runs the service on this machine in the foreground, with sample data: what `make run` does.

`serve run` does the serving, as a child process. This adds what a first run wants: settings of
Ray's own that suit one machine, sample data in an empty store, and a Ctrl-C that ends everything
in seconds and leaves no process behind.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from rich.console import Console

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
LOAD_BATCH = 100
DEFAULT_URL = "http://127.0.0.1:8004"
SAMPLES = Path("data/samples")
EXAMPLES = (
    ("transcript", "relative strength index overbought"),
    ("frame", "price chart with a moving average crossover"),
    ("clip", "how much of my account should I risk on one trade?"),
)

console = Console(highlight=False)


def main() -> int:
    """Start, load, show examples, and serve until Ctrl-C; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", type=Path, default=Path("serve_config.yaml"))
    parser.add_argument("--samples", type=Path, default=SAMPLES)
    parser.add_argument("--log", type=Path, default=Path("data/processed/serve.log"))
    options = parser.parse_args()
    return run(options.config, options.log, options.samples)


def run(config: Path, log: Path, samples: Path | None) -> int:
    """Serve until Ctrl-C; returns the exit code.

    Fills an empty index with `samples`, if given, and shows some searches in them.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    url = url_of(config)
    try:
        _check_port(url)
        console.print(f"Starting Ray Serve; its log is {log} …", markup=False)
        child = start(config, log)
    except StartError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    try:
        settings = Settings.load()
        key = settings.client_key()
        headers = {} if key is None else {"X-API-Key": key}
        wait_until_ready(url, child, headers=headers)
        if samples is not None:
            with httpx.Client(base_url=url, timeout=120, headers=headers) as client:
                writes = key is None or settings.embeddings_api_key is not None
                if writes and client.get("/stats").json()["total_vectors"] == 0:
                    load_samples(client, samples)
                _show_examples(client)
        header = "" if key is None else ' -H "X-API-Key: …"'
        _show_directions(url, log, header, with_make=samples == SAMPLES)
        child.wait()
        raise StartError("The service ended by itself.")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        console.print("\nStopping …")
        return 0
    except StartError as error:
        console.print(f"{error} The end of {log}:\n", style="red", markup=False)
        console.print(_tail(log), markup=False)
        return 1
    finally:
        stop(child)


def url_of(config: Path) -> str:
    """Where the service of a configuration file answers on this machine."""
    http = yaml.safe_load(config.read_text(encoding="utf-8")).get("http_options", {})
    host = http.get("host", "127.0.0.1")
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{http.get('port', 8000)}"


class StartError(Exception):
    """The service didn't come up."""


def _check_port(url: str) -> None:
    """Somebody else who answers there would be taken for this service."""
    address = httpx.URL(url)
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
    document = yaml.safe_load(config.read_text(encoding="utf-8"))
    for application in document["applications"]:
        try:
            settings = Settings.load(application.get("args"))
            check_exposure(settings, document.get("http_options", {}).get("host"))
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


def load_samples(client: httpx.Client, folder: Path) -> None:
    """Store the sample segments of a folder."""
    started = time.monotonic()
    loaded = 0
    for embedding_type in ("transcript", "frame", "clip"):
        by_media_item: dict[int, list[dict[str, Any]]] = defaultdict(list)
        with (folder / f"{embedding_type}s.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                segment = json.loads(line)
                by_media_item[segment.pop("media_item_id")].append(segment)
        for media_item_id, segments in by_media_item.items():
            for batch in _batches(segments):
                response = client.post(
                    "/embed",
                    json={
                        "media_item_id": media_item_id,
                        "embedding_type": embedding_type,
                        "segments": batch,
                    },
                )
                response.raise_for_status()
                loaded += response.json()["embeddings_created"]
    console.print(f"Loaded {loaded} sample segments in {time.monotonic() - started:.1f} s.")


def _batches(segments: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rest = iter(segments)
    while batch := list(itertools.islice(rest, LOAD_BATCH)):
        yield batch


def _show_examples(client: httpx.Client) -> None:
    for embedding_type, query in EXAMPLES:
        request = {"query": query, "embedding_type": embedding_type, "top_k": 3}
        results = client.post("/search", json=request).raise_for_status().json()["results"]
        console.print(f"\n[bold]{query}[/bold] [dim]in {embedding_type}s[/dim]")
        for result in results:
            segment = result["metadata"]
            console.print(
                f"  {result['similarity']:.2f}  {segment['media_item_id']} at "
                f"{_clock(segment['start_time'])}  {segment['text']}",
                overflow="ellipsis",
                no_wrap=True,
                markup=False,
            )


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "--:--"
    return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])


def _show_directions(url: str, log: Path, header: str, with_make: bool) -> None:
    commands, serve = (_typed(name) for name in ("embeddings-service", "serve"))
    where = "" if url == DEFAULT_URL else f" --url {url}"
    clear = "\n  Remove all stored data   make clear, after stopping" if with_make else ""
    console.print(
        f"""
The service is up.
  Search page              {url}/
  Guide                    {url}/guide
  API, to read and try     {url}/docs
  A search                 curl '{url}/search/transcripts?query=when+is+a+stock+overbought'{header}
  From the command line    {commands} search "when is a stock overbought?"{where}
  State of its parts       RAY_AUTH_MODE=token {serve} status
  Log                      {log}
  Stop                     Ctrl-C; everything stored stays{clear}
""",
        markup=False,
        soft_wrap=True,
    )


def _typed(command: str) -> str:
    """What to type in this folder to run a command of this environment."""
    path = Path(sys.executable).with_name(command)
    if shutil.which(command) == str(path):
        return command
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


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


if __name__ == "__main__":
    sys.exit(main())
