"""Points in the Index process where the crash test can make it die or wait.

The two sides meet in a control folder: the test writes `armed`, the process that reaches the
point renames it to `fired` and kills itself. `index.pid` says which process is the Index.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

CONTROL_DIR = "CRASH_CONTROL_DIR"
SABOTAGE = "CRASH_SABOTAGE"


class Point(StrEnum):
    """Where a process can be when it dies."""

    IN_TRANSACTION = "inside a transaction"
    COMMITTED = "between commit and publish"
    PUBLISHED = "between publish and ack"
    CHECKPOINT_WRITE = "in the middle of a checkpoint"
    CHECKPOINT_RENAME = "before a checkpoint's rename"
    CHECKPOINT_RENAMED = "after a checkpoint's rename"
    RECOVERY_READ = "reading a checkpoint at the start"
    RECOVERED = "replayed, before it serves"


AT_START = frozenset({Point.RECOVERY_READ, Point.RECOVERED})
"""Points that a process only passes when it starts."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What should happen at a point: death, or with `wait_s` a pause; `skip` passes go by first."""

    point: Point
    skip: int = 0
    wait_s: float = 0.0


class Control:
    """The test's side of the control folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def arm(self, fault: Fault) -> None:
        """Let the next process that reaches the point die there."""
        self.disarm()
        written = self.folder / "arming"
        written.write_text(json.dumps(asdict(fault)))
        written.replace(self.folder / "armed")

    def disarm(self) -> None:
        """Forget what was armed or has fired."""
        for name in ("armed", "fired"):
            (self.folder / name).unlink(missing_ok=True)

    def fired(self) -> bool:
        """Whether the armed point was reached."""
        return (self.folder / "fired").exists()

    def index_pid(self) -> int | None:
        """The process that was the Index last; it may be dead."""
        try:
            return int((self.folder / "index.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None


class Faults:
    """The Index process' side."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._passes: dict[int, int] = {}
        written = folder / f"pid-{os.getpid()}"
        written.write_text(str(os.getpid()))
        written.replace(folder / "index.pid")

    def reach(self, point: Point, last_act: Callable[[], object] = lambda: None) -> None:
        """Die here if that is armed, after `last_act`; or wait."""
        armed = self._folder / "armed"
        try:
            marker = armed.stat().st_ino
            fault = Fault(**json.loads(armed.read_text()))
        except FileNotFoundError:
            return
        if fault.point != point:
            return
        passes = self._passes.get(marker, 0)
        self._passes[marker] = passes + 1
        if passes < fault.skip:
            return
        last_act()
        armed.replace(self._folder / "fired")
        if fault.wait_s:
            time.sleep(fault.wait_s)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
