"""All reading and writing of files other than SQLite's."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY_SUFFIX = ".writing"
_BLOCK_BYTES = 4 * 1024 * 1024


Sink = Callable[[bytes], None]
"""Takes bytes in order."""


class Disk:
    """The operating system's calls that can fail; tests replace single ones by failing ones."""

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of `data` and return how many bytes were taken."""
        return os.write(descriptor, data)

    def read_into(self, descriptor: int, buffer: memoryview) -> int:
        """Read up to the length of `buffer`; 0 at the end of the file."""
        return os.readv(descriptor, [buffer])

    def sync(self, descriptor: int) -> None:
        """Make what was written to the file or folder durable."""
        os.fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Rename within a folder, over what is there."""
        os.replace(source, target)  # noqa: PTH105 - the call that tests replace

    def sync_folder(self, folder: Path) -> None:
        """Make renames in a folder durable."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    def write_atomically(self, path: Path, produce: Callable[[Sink], None]) -> None:
        """Replace `path` by what `produce` writes: all of it durably, or nothing of it.

        Raises OSError; the file beside which the new one is written is then removed.
        """
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        try:
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644
            )
            try:
                produce(lambda data: self._write_all(descriptor, memoryview(data)))
                self.sync(descriptor)
            finally:
                os.close(descriptor)
            self.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        self.sync_folder(path.parent)

    def _write_all(self, descriptor: int, data: memoryview) -> None:
        while data:
            taken = self.write(descriptor, data)
            if taken <= 0:
                raise OSError(f"wrote {taken} of {len(data)} bytes")
            data = data[taken:]

    @contextmanager
    def reading(self, path: Path) -> Iterator["Reader"]:
        """Open a file for reading. Raises OSError."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield Reader(self, descriptor)
        finally:
            os.close(descriptor)


class Reader:
    """An open file."""

    def __init__(self, disk: Disk, descriptor: int) -> None:
        self._disk = disk
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        """Bytes of the file when it was opened."""

    def seek(self, position: int) -> None:
        """Go to a byte counted from the start."""
        os.lseek(self._descriptor, position, os.SEEK_SET)

    def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer`; fewer bytes only at the end of the file."""
        filled = 0
        while filled < len(buffer):
            got = self._disk.read_into(self._descriptor, buffer[filled:])
            if got == 0:
                break
            filled += got
        return filled

    def read(self, count: int) -> bytes:
        """The next `count` bytes; fewer only at the end of the file."""
        buffer = bytearray(count)
        filled = self.read_into(memoryview(buffer))
        return bytes(memoryview(buffer)[:filled])

    def blocks(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes in blocks, each valid until the next is asked for."""
        buffer = memoryview(bytearray(min(count, _BLOCK_BYTES)))
        while count > 0:
            filled = self.read_into(buffer[: min(count, len(buffer))])
            if filled == 0:
                return
            yield buffer[:filled]
            count -= filled


def remove_temporary_files(folder: Path) -> None:
    """Delete what writes that were cut off have left. Raises OSError."""
    for left_over in folder.glob(f"*{TEMPORARY_SUFFIX}"):
        left_over.unlink(missing_ok=True)
