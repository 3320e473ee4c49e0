"""Copies of an index folder, made while its service runs."""

import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from deployments.core.durable_files import Disk
from deployments.core.errors import FolderLocked, InvalidInput, StoreDamaged
from deployments.core.folders.folder_install import copy_file
from deployments.core.folders.folder_verify import differs, load_checkpoint
from deployments.core.folders.folder_view import FolderView, read_folder
from deployments.core.segments import EmbeddingType, Models
from deployments.core.storage import store_check
from deployments.core.storage.folder_lock import FolderLock
from deployments.core.storage.store_inspection import FILE_NAME
from deployments.core.storage_errors import translated
from deployments.core.telling import Tell, tell_nobody
from deployments.core.vectors import checkpoint, main_part_files
from deployments.core.vectors.checkpoint import Unusable

_PAGES_AT_ONCE = 4096
_SHOWN_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy of an index holds."""

    models: Models
    commit_id: int
    segments: dict[EmbeddingType, int]
    store_bytes: int
    left_out: list[str] = field(default_factory=list)
    """Checkpoints that don't fit the copied store, and why; they are rebuilt from it."""


def back_up(
    source: Path, target: Path, disk: Disk | None = None, *, tell: Tell = tell_nobody
) -> Copied:
    """Copy an index folder as it is at one moment, beside a running service or not.

    Every write that was acknowledged before the call is in the copy. `target` must be new or an
    empty folder; it appears when the copy is complete, verified and durable.

    Raises InvalidInput for a target that can't take a backup, FolderLocked if another process is
    making one there, StoreDamaged for a store that isn't whole, else as read_folder.
    """
    disk = disk or Disk()
    _require_empty(target)
    read_folder(source, lambda view: view.commit_id)  # before anything is made
    partial = target.with_name(f".{target.name}.partial")
    lock = FolderLock(partial)
    if not lock.try_acquire():
        raise FolderLocked(f"Another backup to {target} is being made by {lock.holder()}.")
    try:
        with translated(f"Cannot back up to {target}"):
            for left_over in partial.iterdir():
                if left_over.name != ".lock":
                    left_over.unlink()
        copied = copy_index(source, partial, disk, tell)
        with translated(f"Cannot complete the backup {target}"):
            (partial / ".lock").unlink()
            disk.sync_folder(partial)
            disk.replace(partial, target)
            disk.sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        lock.release()
    return copied


def _require_empty(target: Path) -> None:
    with translated(f"Cannot look at {target}"):
        if not target.exists():
            return
        if not target.is_dir() or any(target.iterdir()):
            raise InvalidInput(
                f"{target} exists and isn't an empty folder; a backup needs a new one."
            )
        if target.is_mount():
            raise InvalidInput(
                f"{target} is a mount point, to which nothing can be renamed; name a folder in it."
            )


def copy_index(source: Path, target: Path, disk: Disk, tell: Tell) -> Copied:
    """Copy a folder's store and those of its checkpoints that fit it into an empty folder.

    The copy is verified and durable, apart from the entry of `target` in its parent. Raises as
    back_up.
    """
    left_out = []
    # Before the store: checkpoints of its past only need what came since, none may be newer.
    # Main parts are copied as they are: a start looks whether they fit, as at any time.
    for kind in EmbeddingType:
        for path in (checkpoint.path_of(source, kind), main_part_files.path_of(source, kind)):
            with translated(f"Cannot copy {path}"), suppress(FileNotFoundError):
                copy_file(path, target / path.name, disk)
    read_folder(source, lambda view: _copy_store(view, target / FILE_NAME, tell))
    copied = read_folder(target, lambda view: _examine(view, tell))
    for kind in EmbeddingType:
        path = checkpoint.path_of(target, kind)
        if path.exists() and (flaw := _flaw(target, kind)):
            path.unlink()
            left_out.append(flaw)
    with translated(f"Cannot make {target} durable"):
        with (target / FILE_NAME).open("rb") as file:
            disk.sync(file.fileno())
        disk.sync_folder(target)
    return Copied(*copied, left_out)


def _copy_store(view: FolderView, target: Path, tell: Tell) -> None:
    def progress(_: int, remaining: int, total: int) -> None:
        tell("Copying pages of the store", total - remaining, total)

    # The view's transaction is open, so all steps copy the same state whatever is written.
    with translated(f"Cannot copy the store to {target}"):
        target.unlink(missing_ok=True)
        with closing(sqlite3.connect(target)) as copy:
            # The whole file is synced at the end, and worth nothing before.
            copy.execute("PRAGMA journal_mode=OFF")
            copy.execute("PRAGMA synchronous=OFF")
            view.reader.connection.backup(copy, pages=_PAGES_AT_ONCE, progress=progress)


def _flaw(folder: Path, kind: EmbeddingType) -> str:
    loaded = load_checkpoint(folder, kind)
    if isinstance(loaded, Unusable):
        return loaded.reason
    return read_folder(folder, lambda view: differs(view, kind, loaded))


def _examine(view: FolderView, tell: Tell) -> tuple[Models, int, dict[EmbeddingType, int], int]:
    problems = store_check.problems(view.reader, view.models, tell)
    if problems:
        raise StoreDamaged(damage(view.folder / FILE_NAME, problems))
    store_bytes = (view.folder / FILE_NAME).stat().st_size
    return view.models, view.commit_id, view.counts(), store_bytes


def damage(path: Path, problems: list[str]) -> str:
    """A message with the first of the problems of a store."""
    shown = problems[:_SHOWN_PROBLEMS]
    more = [f"… and {len(problems) - len(shown)} more"] if len(problems) > len(shown) else []
    return "\n  ".join([f"{path} is damaged:", *shown, *more])
