"""`ray job submit` of backfills to a running service, and their sudden end."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.serve.service import ROOT, Service, operator_environment

MODULE = "deployments.jobs.backfill"


class BackfillJob:
    """A submitted job, whose log is followed."""

    def __init__(self, service: Service, *arguments: str) -> None:
        self._service = service
        command = [str(Path(sys.executable).with_name("ray")), "job", "submit"]
        command += ["--address", service.dashboard, "--working-dir", str(ROOT), "--"]
        # Of several Rays on a machine, Ray would take the last one, wherever a job is submitted.
        command += ["env", f"RAY_ADDRESS={_address(service)}"]
        command += ["python", "-m", MODULE, *arguments]
        self._submit = subprocess.Popen(
            command,
            env=operator_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kill(self) -> None:
        """SIGKILL the job's own process."""
        for process in psutil.Process(self._service.pid).children(recursive=True):
            command = process.cmdline()
            if command[1:3] == ["-m", MODULE]:
                process.send_signal(signal.SIGKILL)
                return
        raise AssertionError("the job has no process")

    def wait(self) -> tuple[int, str]:
        """The exit code of `ray job submit`, and the job's log."""
        log, _ = self._submit.communicate(timeout=240)
        return self._submit.returncode, log


def _address(service: Service) -> str:
    """Of the service's own Ray, from the command line of its raylet."""
    for process in psutil.Process(service.pid).children(recursive=True):
        found = re.search(r"--gcs-address=(\S+)", " ".join(process.cmdline()))
        if found:
            return found[1]
    raise AssertionError("no raylet among the service's processes")


def summary(log: str) -> dict[str, Any]:
    """What `--json` printed."""
    return json.loads(next(line for line in log.splitlines() if line.startswith('{"files"')))


def wait_until_stored(service: Service, count: int) -> None:
    """Return when so many transcript vectors are stored."""
    deadline = time.monotonic() + 120
    while service.get("/stats").json()["transcript_vectors"] < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def exported(service: Service) -> list[dict[str, Any]]:
    """Every stored segment, by the command that an operator has for it."""
    file = service.folder / "export.jsonl"
    command = [str(Path(sys.executable).with_name("embeddings-service")), "export", str(file)]
    command += ["--index-dir", str(service.index_dir)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    # Lines end with \n only: texts may have what else Python takes for the end of one.
    _, *lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return [json.loads(line) for line in lines]
