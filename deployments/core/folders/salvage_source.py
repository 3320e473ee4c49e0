"""A store that lost its end, made readable in a copy."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.core.storage.store_inspection import FILE_NAME
from deployments.core.storage_errors import translated

_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"


@contextmanager
def readable_folder(folder: Path) -> Iterator[Path]:
    """The folder, or one that can be read instead of it.

    SQLite reads nothing at all of a file that is shorter than its header says. Such a one is
    copied to the system's place for temporary files (TMPDIR) and filled up with zeros, which take
    no room. Raises StoreFull if the copy has none.
    """
    path = folder / FILE_NAME
    with translated(f"Cannot copy {path} to {tempfile.gettempdir()}"):
        lacking = _lacks_its_end(path)
    if not lacking:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="embeddings-salvage-") as place:
        copy = Path(place)
        with translated(f"Cannot copy {path} to {copy}"):
            for file in folder.iterdir():
                if file.name.startswith(FILE_NAME):
                    shutil.copyfile(file, copy / file.name)
                elif file.is_file():
                    (copy / file.name).symlink_to(file.absolute())
            os.truncate(copy / FILE_NAME, _bytes_by_header(path))
        yield copy


def _lacks_its_end(path: Path) -> bool:
    return path.exists() and path.stat().st_size < _bytes_by_header(path)


def _bytes_by_header(path: Path) -> int:
    """The size that the file's header says, 0 if it says none."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    # The size counts only if it was written together with the last change.
    if len(header) < _HEADER_BYTES or header[:16] != _MAGIC or header[24:28] != header[92:96]:
        return 0
    page_bytes = int.from_bytes(header[16:18], "big")
    return (65536 if page_bytes == 1 else page_bytes) * int.from_bytes(header[28:32], "big")
