"""`store.last_commit`: how far the store had come, so that a store that lost commits is noticed."""

import json
import os
from contextlib import suppress
from pathlib import Path

from .storage_errors import translated

FILE_NAME = "store.last_commit"
_RECORD_BYTES = 128


class CommitMark:
    """The last commit of a store, written after each one.

    It is not synced, so after a power failure it may be older than the store, but never newer:
    a store that is behind it was replaced by an older copy, or has lost its write-ahead log.
    Raises StoreUnwritable if the file can't be opened.
    """

    def __init__(self, folder: Path, store_id: str) -> None:
        self._store_id = store_id
        path = folder / FILE_NAME
        with translated(f"Cannot open {path}"):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def read(self) -> int:
        """The commit that was recorded last for this store, 0 if none was."""
        try:
            record = json.loads(os.pread(self._descriptor, _RECORD_BYTES, 0))
            return int(record["commit_id"]) if record["store_id"] == self._store_id else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def record(self, commit_id: int) -> None:
        """Note a durable commit. A disk that refuses this costs the warning, not the commit."""
        text = json.dumps({"store_id": self._store_id, "commit_id": commit_id})
        # Of a fixed length, so that no end of an older record is left.
        with suppress(OSError):
            os.pwrite(self._descriptor, text.encode().ljust(_RECORD_BYTES), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
