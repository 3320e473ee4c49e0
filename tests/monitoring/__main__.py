"""Runs cluster/prometheus.yml and cluster/alerts.yml in a real Prometheus over a real service.

Needs the program `prometheus` and `promtool` (Debian's package `prometheus`). Every query of the
dashboard and every alert is asked; exit code 1 if one fails, or finds nothing though it should.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests
import yaml

from tests.monitoring.expressions import (
    ALERTS,
    CLUSTER,
    alert_expressions,
    dashboard_expressions,
)
from tests.serve.logs import session_folder
from tests.serve.service import Service, free_ports

ALERT_TESTS = Path(__file__).with_name("alerts_test.yml")
SCRAPES = "2s"
WORK_S = 40
RATE = "20s"
# Counters and gauges of what went wrong, or has yet to happen, aren't there in a healthy service.
APPEAR_LATER = (
    'ray_embeddings_http_requests_total{status="429"}',
    "ray_embeddings_checkpoint_",
    "ray_embeddings_checkpoints_",
    "ray_embeddings_salvage_rows",
    "ray_embeddings_encoder_failed_batches_total",
    "ray_embeddings_encoder_overloaded_calls_total",
    "ray_embeddings_encoder_duplicate_rows_total",
    "ray_embeddings_encoder_remembered_rows_total",
)


def main() -> int:
    """Start both, work, ask; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, help="the folder of prometheus and promtool")
    options = parser.parse_args()
    path = options.bin and str(options.bin)
    prometheus, promtool = (shutil.which(name, path=path) for name in ("prometheus", "promtool"))
    if prometheus is None or promtool is None:
        print("prometheus and promtool aren't installed; on Debian: apt-get install prometheus")
        return 1
    subprocess.run([promtool, "check", "config", CLUSTER / "prometheus.yml"], check=True)
    subprocess.run([promtool, "check", "rules", ALERTS], check=True)
    subprocess.run([promtool, "test", "rules", ALERT_TESTS], check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Service(folder / "service") as service, running(prometheus, folder, service) as url:
            work(service)
            return report(url)


class running:  # noqa: N801 - used like a function
    """Prometheus with the configuration of cluster/, scraping this service often."""

    def __init__(self, prometheus: str, folder: Path, service: Service) -> None:
        config = yaml.safe_load((CLUSTER / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": SCRAPES, "evaluation_interval": SCRAPES}
        config["rule_files"] = [str(ALERTS)]
        discovery = session_folder(service) / "prom_metrics_service_discovery.json"
        for source in config["scrape_configs"][0]["file_sd_configs"]:
            source["files"] = [str(discovery)]
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        (port,) = free_ports(1)
        self._url = f"http://127.0.0.1:{port}"
        self._command = [
            prometheus,
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]

    def __enter__(self) -> str:
        self._process = subprocess.Popen(self._command)
        deadline = time.monotonic() + 30
        while True:
            try:
                requests.get(f"{self._url}/-/ready", timeout=5).raise_for_status()
                return self._url
            except requests.RequestException:
                if time.monotonic() > deadline:
                    self.__exit__()
                    raise
                time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)


def work(service: Service) -> None:
    """Embed and search for a while, with some of what the dashboard shows of mistakes."""
    deadline = time.monotonic() + WORK_S
    count = 0
    while time.monotonic() < deadline:
        count += 1
        long = " ".join(f"word{i}" for i in range(400))
        segments = [{"id": 1, "text": f"segment {count}"}, {"id": 2, "text": f"{long} {count}"}]
        service.embed(count, segments)
        service.search(f"segment {count % 7}")
        service.get("/nowhere")
        service.get("/stats", headers={"Host": "somebody.example"})
        service.get("/health/ready")
        time.sleep(0.1)


def ask(url: str, expression: str) -> list[dict]:
    """The series that an expression gives now. Raises requests.HTTPError."""
    answer = requests.get(f"{url}/api/v1/query", params={"query": expression}, timeout=30)
    answer.raise_for_status()
    return answer.json()["data"]["result"]


def report(url: str) -> int:
    """Print what each expression gives; returns 1 if one gives nothing or an alert fires."""
    wrong = 0
    for name, expression in dashboard_expressions().items():
        series = ask(url, expression.replace("$__rate_interval", RATE))
        later = any(metric in expression for metric in APPEAR_LATER)
        wrong += not series and not later
        shown = ", ".join(f"{float(each['value'][1]):.4g}" for each in series[:4])
        print(f"{'ok' if series else 'later' if later else 'NOTHING':8}{name:52}{shown}")
    for name, expression in alert_expressions().items():
        firing = ask(url, expression)
        wrong += bool(firing)
        print(f"{'FIRES' if firing else 'quiet':8}{name}")
    rules = requests.get(f"{url}/api/v1/rules", timeout=30).json()["data"]["groups"][0]["rules"]
    unhealthy = [
        f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] != "ok"
    ]
    print("\n".join(unhealthy))
    return int(bool(wrong or unhealthy))


if __name__ == "__main__":
    sys.exit(main())
