"""Reads what a running service has logged."""

import json
import re
from pathlib import Path

import psutil

from tests.serve.service import Service

_SESSION = re.compile(r"(/\S+/session_[\w-]+)/sockets/raylet")


def session_folder(service: Service) -> Path:
    """Where the service's Ray keeps its files."""
    for process in psutil.Process(service.pid).children(recursive=True):
        if found := _SESSION.search(" ".join(process.cmdline())):
            return Path(found[1])
    raise AssertionError("no raylet among the service's processes")


def log_files(service: Service) -> list[Path]:
    """Every file that a line may have gone to."""
    logs = session_folder(service) / "logs"
    return [service.log, *(path for path in logs.rglob("*") if path.is_file())]


def replica_lines(service: Service, deployment: str) -> list[dict]:
    """The log of a deployment's replicas, each line parsed."""
    folder = session_folder(service) / "logs" / "serve"
    return [
        json.loads(line)
        for path in folder.glob(f"replica_*_{deployment}_*.log")
        for line in path.read_text().splitlines()
    ]
