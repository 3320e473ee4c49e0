"""A disk whose calls fail when told to."""

import errno
import os
from pathlib import Path

from deployments.core.durable_files import Disk


class FaultyDisk(Disk):
    """Counts the calls of each kind and fails those at or after `fail_at`.

    `call` is one of write, read, sync, replace, sync_folder. With `short`, writes and reads take
    at most that many bytes at a time.
    """

    def __init__(
        self, call: str = "", error: int = errno.EIO, fail_at: int = 0, short: int | None = None
    ) -> None:
        self.call = call
        self.error = error
        self.fail_at = fail_at
        self.short = short
        self.calls: dict[str, int] = {}

    def write(self, descriptor: int, data: memoryview) -> int:
        self._pass("write")
        return super().write(descriptor, data[: self.short])

    def read_into(self, descriptor: int, buffer: memoryview) -> int:
        self._pass("read")
        return super().read_into(descriptor, buffer[: self.short])

    def sync(self, descriptor: int) -> None:
        self._pass("sync")
        super().sync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        self._pass("replace")
        super().replace(source, target)

    def sync_folder(self, folder: Path) -> None:
        self._pass("sync_folder")
        super().sync_folder(folder)

    def _pass(self, call: str) -> None:
        count = self.calls.get(call, 0)
        self.calls[call] = count + 1
        if call == self.call and count >= self.fail_at:
            raise OSError(self.error, os.strerror(self.error))
