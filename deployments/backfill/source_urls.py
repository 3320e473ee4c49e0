"""What files are called: by URLs that name one file each, whatever pattern or chain led to it."""

from typing import Any

from fsspec.archive import AbstractArchiveFileSystem
from fsspec.implementations.local import LocalFileSystem

_LOCAL = ("file", "local")


def url_of(source: str, file_system: Any, path: str) -> str:
    """The URL of the file at `path`, which was found through `source`; local ones are paths.

    A chain is kept, since without it files of two archives would be called the same:
    `zip://rows.jsonl::/videos/a.zip`.
    """
    links = source.split("::")
    if len(links) > 1:
        return _chained(links, path, isinstance(file_system, AbstractArchiveFileSystem))
    is_local = isinstance(file_system, LocalFileSystem)
    return path if is_local else str(file_system.unstrip_protocol(path))


def local_path(url: str) -> str | None:
    """Where the file is on this machine, or the archive that it is in; None if elsewhere."""
    last = url.split("::")[-1]
    return None if "://" in last else last


def _chained(links: list[str], path: str, in_archive: bool) -> str:
    # What only caches, as simplecache does, has no path of its own.
    own = 0 if in_archive else next((n for n, link in enumerate(links) if "://" in link), -1)
    protocol, colon, _ = links[own].partition("://")
    is_local = protocol in _LOCAL or not (colon or in_archive)
    has_protocol = is_local or path.startswith(f"{protocol}://")
    links[own] = path if has_protocol else f"{protocol}://{path}"
    return "::".join([*links[:-1], _absolute(links[-1])])


def _absolute(link: str) -> str:
    """The end of a chain, from the root if it is a local path."""
    protocol, colon, _ = link.partition("://")
    return str(LocalFileSystem._strip_protocol(link)) if not colon or protocol in _LOCAL else link
