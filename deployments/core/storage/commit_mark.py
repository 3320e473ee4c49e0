"""`store.last_commit`: how far the store had come, so that a store that lost commits is noticed."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from deployments.core.errors import StoreDamaged

FILE_NAME = "store.last_commit"
_RECORD_BYTES = 128


def tells_of_commits(folder: Path) -> bool:
    """Whether any store of this folder ever made a commit."""
    return bool(_record(folder / FILE_NAME).get("commit_id"))


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


class CommitMark:
    """The last commit of a store, written after each one.

    It is not synced, so after a power failure it may be older than the store, but never newer:
    a store that is behind it was replaced by an older copy, or has lost its write-ahead log. A
    disk that refuses to keep it costs that notice, not the commit: nothing here raises.
    """

    def __init__(self, folder: Path, store_id: str) -> None:
        self._path = folder / FILE_NAME
        self._store_id = store_id
        self._descriptor: int | None = None

    def read(self) -> int:
        """The commit that was recorded last for this store, 0 if none was."""
        record = _record(self._path)
        commit_id = record.get("commit_id")
        if record.get("store_id") != self._store_id or not isinstance(commit_id, int):
            return 0
        return commit_id

    def require(self, commit_id: int) -> None:
        """Raise StoreDamaged if the store, which is at this commit, was further before."""
        recorded = self.read()
        if recorded > commit_id:
            raise StoreDamaged(
                f"store.sqlite3 in {self._path.parent} is at commit {commit_id}, but commit "
                f"{recorded} was made durable in it: it was replaced by an older copy, or its -wal "
                "file was removed. Restore both; or, if the older state is what you want, delete "
                f"{FILE_NAME} and the *_index.faiss files. With EMBEDDINGS_SALVAGE=1 the service "
                "searches the older state, read-only."
            )

    def record(self, commit_id: int) -> None:
        """Note a durable commit."""
        text = json.dumps({"store_id": self._store_id, "commit_id": commit_id})
        with suppress(OSError):
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o644)
                os.ftruncate(self._descriptor, _RECORD_BYTES)
            # Of a fixed length, so that no end of an older record is left.
            os.pwrite(self._descriptor, text.encode().ljust(_RECORD_BYTES), 0)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
