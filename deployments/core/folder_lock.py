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

from .errors import FolderLocked
from .storage_errors import translated

_RECORD_BYTES = 1024


class FolderLock:
    """An exclusive flock on `<folder>/.lock`, gone with its process however that ends.

    The file also says who holds it (process id, host, start time) and which commit the store was
    at, so that a store that lost commits is noticed at the next start. It stays when released.
    Raises StoreUnwritable if the folder can't be made or the file can't be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        self._descriptor: int | None = None
        self._owner: dict[str, Any] = {}

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
        self._owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._write(self._read())
        return True

    def holder(self) -> str:
        """Who wrote the lock file last, for messages, such as "process 12 on host a since …"."""
        record = self._read()
        if "pid" not in record:
            return "an unknown process"
        return f"process {record['pid']} on host {record.get('host')} since {record.get('started')}"

    def last_commit(self, store_id: str) -> int:
        """The highest commit recorded for this store, 0 if none is known."""
        record = self._read()
        commit_id = record.get("commit_id")
        known = record.get("store_id") == store_id and isinstance(commit_id, int)
        return commit_id if known and commit_id is not None else 0

    def record_commit(self, store_id: str, commit_id: int) -> None:
        """Note that the store is at `commit_id`. Not synced: it must outlive the process only."""
        self._write({"store_id": store_id, "commit_id": commit_id})

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

    def _write(self, commit: dict[str, Any]) -> None:
        if self._descriptor is None:
            return
        kept = {key: commit[key] for key in ("store_id", "commit_id") if key in commit}
        # One write of a fixed length: a reader never sees the end of an older, longer record.
        record = json.dumps(self._owner | kept).encode().ljust(_RECORD_BYTES)
        # The lock holds whether or not its message could be written.
        with suppress(OSError):
            os.pwrite(self._descriptor, record, 0)

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
