"""Image files under an allowed folder, read so that no path leads out of it."""

import errno
import os
import stat
from pathlib import Path

from deployments.core.errors import InvalidInput

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without waiting: a FIFO's open would last until somebody writes to it.
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def read_image_file(root: Path, path: str, max_bytes: int) -> bytes:
    """The content of a file under `root`; `path` is absolute or relative to it.

    Links are followed as long as they stay inside. Raises InvalidInput for what isn't a file there,
    or has more than `max_bytes`; the message says nothing about what lies outside.
    """
    try:
        inside = Path(os.path.realpath(root / path)).relative_to(os.path.realpath(root))
    except ValueError:
        raise InvalidInput(f"image_path {path!r} leads out of EMBEDDINGS_IMAGE_ROOT") from None
    try:
        return _read(root, inside, max_bytes)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.ENXIO):
            reason = "names no file under EMBEDDINGS_IMAGE_ROOT"
        else:
            reason = f"can't be read: {error.strerror}"
        raise InvalidInput(f"image_path {path!r} {reason}") from error
    except _Unusable as reason:
        raise InvalidInput(f"image_path {path!r} {reason}") from None


class _Unusable(Exception):
    pass


def _read(root: Path, inside: Path, max_bytes: int) -> bytes:
    # Step by step and without following links: what was resolved can't be exchanged meanwhile.
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in inside.parts[:-1]:
            inner = os.open(name, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        if not inside.parts:
            raise _Unusable("is EMBEDDINGS_IMAGE_ROOT itself")
        file = os.open(inside.parts[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise _Unusable("is no regular file")
        # The file may grow while it is read.
        with os.fdopen(file, "rb", closefd=False) as content:
            data = content.read(max_bytes + 1) if found.st_size <= max_bytes else None
    finally:
        os.close(file)
    if data is None or len(data) > max_bytes:
        raise _Unusable(f"has more than {max_bytes} bytes (EMBEDDINGS_MAX_IMAGE_BYTES)")
    return data
