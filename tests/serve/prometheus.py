"""Reads the Prometheus endpoint of a service's Ray node, as a scraper would."""

import re
import time
from collections.abc import Callable

import requests

from tests.serve.logs import session_folder
from tests.serve.service import Service

_SERIES = re.compile(r"^ray_((?:embeddings|serve)_\w+)\{(.*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Metrics:
    """The metrics of the service and of Serve at one moment, without Ray's prefix."""

    def __init__(self, text: str) -> None:
        found = (_SERIES.match(line) for line in text.splitlines())
        self._series = [
            (each[1], dict(_LABEL.findall(each[2])), float(each[3])) for each in found if each
        ]

    @property
    def names(self) -> set[str]:
        return {name for name, _, _ in self._series}

    def value(self, name: str, **labels: str) -> float | None:
        """The sum over all processes of a metric with these labels; None without any."""
        values = [
            value
            for each, found, value in self._series
            if each == name and labels.items() <= found.items()
        ]
        return sum(values) if values else None


def wait_for_metrics(service: Service, ready: Callable[[Metrics], bool]) -> Metrics:
    """The metrics once `ready` says so; they are published and collected every few seconds."""
    url = f"http://127.0.0.1:{export_port(service)}/metrics"
    deadline = time.monotonic() + 60
    while True:
        text = requests.get(url, timeout=10).text
        metrics = Metrics(text)
        if ready(metrics):
            return metrics
        assert time.monotonic() < deadline, "\n".join(
            line for line in text.splitlines() if line.startswith("ray_embeddings")
        )
        time.sleep(0.5)


def export_port(service: Service) -> int:
    """What Ray has written into its session's folder."""
    (path,) = session_folder(service).glob("metrics_export_port_*")
    return int(path.read_text())
