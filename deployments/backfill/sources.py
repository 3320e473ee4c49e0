"""Finding and opening files, here or anywhere that fsspec reaches."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import has_magic
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
from fsspec.compression import compr
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import infer_compression

from deployments.backfill.formats import FORMATS, format_of, without_compression
from deployments.backfill.linked_folders import LinkedFolders, each_once
from deployments.backfill.rows import UnreadableSource
from deployments.backfill.source_urls import url_of
from deployments.core.errors import InvalidInput

VERSION_MARKS = (
    "ETag",
    "etag",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
    "CRC",
)
"""What file systems tell of a file that is another when the content is."""

_DECOMPRESSED_BY = {
    ".zst": "the package zstandard",
    ".lz4": "the package lz4",
    ".gz": "a Python with zlib",
    ".bz2": "a Python with bz2",
    ".xz": "a Python with lzma",
    ".lzma": "a Python with lzma",
}
"""What decompresses files, by extension; where it is missing, fsspec takes bytes as they are."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read. `url` is what it, and no other one, is called; `path` is within its file
    system, such as an archive."""

    url: str
    path: str
    format: str
    size: int | None
    version: str
    """Another one when the content is another: the time of the last change, or an ETag."""
    file_system: Any

    @property
    def name(self) -> str:
        """Its name without folders and without .gz."""
        return without_compression(PurePosixPath(self.path).name)

    @property
    def stem(self) -> str:
        """Its name without extensions."""
        return PurePosixPath(self.name).stem

    @contextmanager
    def open(self) -> Iterator["OpenFile"]:
        """Open it, decompressed. Raises what the file system raises.

        And UnreadableSource if nothing is installed that decompresses it.
        """
        compression = infer_compression(self.path)
        extension = PurePosixPath(self.path).suffix.lower()
        if compression is None and extension in _DECOMPRESSED_BY:
            needed = _DECOMPRESSED_BY[extension]
            raise UnreadableSource(f"{extension} needs {needed}; install it where this runs")
        with self.file_system.open(self.path, "rb") as raw:
            yield OpenFile(compr[compression](raw, mode="rb") if compression else raw, raw)

    def beside(self, name: str, most_bytes: int) -> tuple[str, bytes | None]:
        """Path and first bytes of another file in its folder; None if there is none.

        Raises UnreadableSource.
        """
        path = str(PurePosixPath(self.path).with_name(name))
        try:
            if not self.file_system.exists(path):
                return path, None
            content: bytes = self.file_system.cat_file(path, 0, most_bytes)
        except (OSError, ValueError) as error:
            raise UnreadableSource(f"{path} can't be read: {error}") from error
        return path, content


@dataclass(frozen=True, slots=True)
class OpenFile:
    """What an open file holds, and the file as it is stored."""

    stream: IO[bytes]
    raw: IO[bytes]

    def position(self) -> int:
        """How many of the stored file's bytes were read, or about so many."""
        try:
            return self.raw.tell()
        except (OSError, ValueError):
            return 0


def find_files(sources: Sequence[str], form: str | None = None) -> list[SourceFile]:
    """The files that sources name: each is a file, a folder, or a pattern with *, ? or **.

    `form` is the format of all files; else their extensions tell, and others in folders are left
    out. A file that several sources or linked folders lead to is there once. Raises InvalidInput
    for a source that is none or holds none.
    """
    found: dict[str, SourceFile] = {}
    for source in sources:
        try:
            files = _files_of(source, form)
        except ImportError as error:
            raise InvalidInput(f"{source}: {error}") from error
        except FileNotFoundError as error:
            raise InvalidInput(f"{source} doesn't exist") from error
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{source} can't be read: {error}") from error
        if not files:
            raise InvalidInput(
                f"{source} has no files of a known format ({', '.join(FORMATS)}); --format names it"
                if form is None
                else f"{source} has no files"
            )
        found |= {file.url: file for file in files}
    local = {url for url, file in found.items() if isinstance(file.file_system, LocalFileSystem)}
    once = each_once(local)
    return [file for url, file in found.items() if url not in local or url in once]


def _files_of(source: str, form: str | None) -> list[SourceFile]:
    file_system, path = fsspec.core.url_to_fs(source)
    if type(file_system) is LocalFileSystem:
        file_system = LinkedFolders()
    if has_magic(path) and not file_system.exists(path):
        details = file_system.glob(path, detail=True)
    elif file_system.isdir(path):
        details = file_system.find(path, detail=True)
    else:
        details = {path: file_system.info(path)}
        if form is None and format_of(path) is None:
            raise InvalidInput(
                f"{source} has an extension of no known format ({', '.join(FORMATS)}); "
                "--format names it"
            )
    files = []
    for name, info in sorted(details.items()):
        kind = form or format_of(name)
        if kind is not None and info.get("type") != "directory":
            url = url_of(source, file_system, name)
            version = next((str(info[mark]) for mark in VERSION_MARKS if info.get(mark)), "")
            files.append(SourceFile(url, name, kind, info.get("size"), version, file_system))
    return files
