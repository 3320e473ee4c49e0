"""The exclusive lock that keeps a second writer out of an index folder."""

import fcntl
import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from deployments.core.errors import FolderLocked
from deployments.core.storage_errors import translated

_RECORD_BYTES = 1024


class FolderLock:
    """An exclusive flock on `<folder>/.lock`, gone with its process however that ends.

    The file says who took it last (process id, host, start time), and stays when released.
    Raises StoreUnwritable if the folder can't be made or the file can't be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def try_acquire(self) -> bool:
        """Take the lock without waiting; False if another process or object holds it."""
        if self.held:
            return True
        with translated(f"Cannot open {self._path}"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            except OSError:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        self._write(descriptor)
        return True

    def holder(self) -> str:
        """Who wrote the lock file last, for messages, such as "process 12 on host a since …"."""
        record = self._read()
        if "pid" not in record:
            return "an unknown process"
        return f"process {record['pid']} on host {record.get('host')} since {record.get('started')}"

    def release(self) -> None:
        """Give the lock up; harmless if it isn't held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads(self._path.read_bytes()[:_RECORD_BYTES])
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _write(self, descriptor: int) -> None:
        record = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        # The lock holds whether or not its message could be written. One write of a fixed
        # length: a reader never sees the end of an older, longer record.
        with suppress(OSError):
            os.pwrite(descriptor, json.dumps(record).encode().ljust(_RECORD_BYTES), 0)

    def __enter__(self) -> "FolderLock":
        if not self.try_acquire():
            raise FolderLocked(
                f"{self._path.parent} is in use by {self.holder()}. An index folder has one "
                "writer: stop that process, or choose another FAISS_INDEX_DIR."
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
