"""The files that a backfill writes to, which must be none that it reads."""

import json
from collections.abc import Sequence
from pathlib import Path

from deployments.backfill.source_urls import local_path
from deployments.backfill.sources import SourceFile
from deployments.core.errors import InvalidInput

_Identity = tuple[int, int]


def without_own(
    files: Sequence[SourceFile], quarantine: Path | None, progress: Path | None
) -> list[SourceFile]:
    """The files without the quarantine that an earlier run has left among them.

    Raises InvalidInput where writing would destroy a source, its sidecar, or the other of the two;
    symbolic and hard links to one are it, too.
    """
    if quarantine is not None and progress is not None and _is_one_file(quarantine, progress):
        raise InvalidInput(f"--quarantine and --progress are one file, {progress}; name two")
    if progress is not None:
        files = _without(files, progress, "--progress")
    if quarantine is not None:
        files = _without(files, quarantine, "--quarantine")
    return list(files)


def _without(files: Sequence[SourceFile], target: Path, option: str) -> list[SourceFile]:
    identity = _identity(target)
    others = []
    for file in files:
        local = local_path(file.url)
        if local is None:
            others.append(file)
            continue
        sidecar = Path(local).with_name(f"{file.stem}.json")
        if sidecar == target or (identity is not None and _identity(sidecar) == identity):
            raise InvalidInput(f"{option} is {target}, the metadata of {file.url}; name another")
        if identity is None or _identity(Path(local)) != identity:
            others.append(file)
        elif option != "--quarantine" or not _is_quarantine(target):
            raise InvalidInput(
                f"{option} is {target}, which is a source and would be overwritten; name another"
            )
    return others


def _identity(path: Path) -> _Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_one_file(one: Path, other: Path) -> bool:
    identity = _identity(one)
    if identity is not None:
        return identity == _identity(other)
    return one.resolve() == other.resolve()


def _is_quarantine(path: Path) -> bool:
    """Whether a backfill wrote the file, or nobody has written to it."""
    with path.open("rb") as lines:
        first = next((line for line in lines if line.strip()), None)
    try:
        return first is None or set(json.loads(first)) == {"source", "row", "reason", "raw"}
    except (ValueError, TypeError, RecursionError):
        return False
