"""The service under test: real Serve, real processes, and ways to kill them."""

import contextlib
import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path

import psutil
import yaml

from tests.crash.faults import CONTROL_DIR, SABOTAGE, Control
from tests.serve.service import ROOT, Service

MARK = "CRASH_RUN"


class MortalService(Service):
    """A service whose Index, or whose every process, can be killed; the folder outlives it."""

    def __init__(
        self,
        folder: Path,
        settings: dict | None = None,
        *,
        faulty: bool = True,
        environment: dict[str, str] | None = None,
        sabotage: str = "",
    ) -> None:
        # Ray's sockets need a path of less than 108 characters.
        self._ray = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self._mark = uuid.uuid4().hex
        self.control = Control(folder / "control")
        super().__init__(
            folder,
            settings,
            {
                "RAY_TMPDIR": str(self._ray),
                "PYTHONPATH": str(ROOT),
                CONTROL_DIR: str(self.control.folder),
                SABOTAGE: sabotage,
                MARK: self._mark,
                **(environment or {}),
            },
        )
        if faulty:
            config = yaml.safe_load(self.config.read_text())
            (application,) = [each for each in config["applications"] if each["name"] == "index"]
            application["import_path"] = "tests.crash.app:index"
            self.config.write_text(yaml.safe_dump(config))

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def index_process(self) -> psutil.Process | None:
        """The living Index process, by what it wrote about itself and by its parents."""
        pid = self.control.index_pid()
        with contextlib.suppress(psutil.NoSuchProcess):
            if pid is not None:
                process = psutil.Process(pid)
                is_ours = self.pid in {parent.pid for parent in process.parents()}
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    return process
        return None

    def kill_index(self) -> int | None:
        """SIGKILL the Index process; returns its id, None if it is dead already."""
        process = self.index_process()
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                return process.pid
        return None

    def kill_everything(self) -> list[str]:
        """SIGKILL the whole cluster at once; returns the names of what survived, then killed."""
        root = psutil.Process(self.pid)
        family = [root, *root.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)
        survivors = self._marked()
        names = []
        for process in survivors:
            with contextlib.suppress(psutil.NoSuchProcess):
                names.append(process.name())
                process.kill()
        psutil.wait_procs(survivors, timeout=10)
        return names

    def _marked(self) -> list[psutil.Process]:
        """Processes that were born into this service, whoever their parent is now."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get(MARK) == self._mark:
                    found.append(process)
        return found

    def remove_ray_files(self) -> None:
        """Delete Ray's logs and sockets, after stop()."""
        shutil.rmtree(self._ray, ignore_errors=True)

    def copy_of_folder(self, target: Path) -> Path:
        """Copy the index folder of the stopped or dead service."""
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.index_dir, target, ignore=shutil.ignore_patterns(".lock"))
        return target


def wait_for(condition, timeout_s: float, pause_s: float = 0.01) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + timeout_s
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(pause_s)
    return bool(met)
