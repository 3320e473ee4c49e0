"""This machine's files, those in symbolically linked folders, too."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem


class LinkedFolders(LocalFileSystem):  # type: ignore[misc]
    """A LocalFileSystem that finds what is in linked folders, and ends where links go in circles.

    fsspec's own takes a link to a folder for neither a file nor a folder.
    """

    cachable = False

    def ls(self, path: Any, detail: bool = False, **options: Any) -> list[Any]:
        """What is in a folder; a link that leads back to one of the folders above isn't one."""
        entries: list[Any] = super().ls(path, detail=detail, **options)
        links = [entry for entry in entries if entry["islink"]] if detail else []
        if links:
            folder = Path(self._strip_protocol(path))
            above = {os.path.realpath(each) for each in (folder, *folder.parents)}
            for entry in links:
                _follow(entry, above)
        return entries


def _follow(entry: dict[str, Any], above: set[str]) -> None:
    try:
        target = Path(entry["name"]).stat()
    except OSError:
        return
    entry["mtime"] = target.st_mtime
    if stat.S_ISDIR(target.st_mode) and os.path.realpath(entry["name"]) not in above:
        entry["type"] = "directory"


def each_once(paths: Iterable[str]) -> set[str]:
    """The paths without those that lead to another one's file through a linked folder.

    Of such paths that without links stays, else the first one. A link to a file is a file.
    """
    folders: dict[str, str] = {}
    kept: dict[str, str] = {}
    for path in sorted(paths):
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        real = os.path.join(folders[folder], name)  # noqa: PTH118 - a Path takes ten times as long
        if path == real or real not in kept:
            kept[real] = path
    return set(kept.values())
