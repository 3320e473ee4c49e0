"""Putting a backup in an index folder's place."""

from dataclasses import dataclass
from pathlib import Path

from deployments.core.durable_files import Disk
from deployments.core.errors import InvalidInput, StoreDamaged
from deployments.core.folders.backup import Copied, copy_index, damage
from deployments.core.folders.folder_install import (
    INCOMING,
    fold_log,
    incoming_folder,
    index_files,
    keep_aside,
    put_in_place,
    unused,
)
from deployments.core.folders.folder_verify import verify_folder
from deployments.core.storage.folder_lock import FolderLock
from deployments.core.storage.store_inspection import FILE_NAME
from deployments.core.storage_errors import translated
from deployments.core.telling import Tell, tell_nobody

_NOT_CONTENT = {".lock", INCOMING, "lost+found"}


@dataclass(frozen=True, slots=True)
class Restored:
    """What is in the folder now, and where the index is that was there before."""

    copied: Copied
    kept: Path | None


def restore(
    source: Path,
    folder: Path,
    *,
    force: bool = False,
    disk: Disk | None = None,
    tell: Tell = tell_nobody,
) -> Restored:
    """Make a copy of a backup the index of a folder that no service uses.

    With `force` the folder may have content: the files of its index go to a new folder beside it,
    or within it where that is another file system; other files stay. A kill at any moment leaves
    the old index or the new one, and the same call can be made again.

    Raises FolderLocked if a service uses the folder, InvalidInput if it has content, StoreDamaged
    if the backup isn't whole, else as read_folder.
    """
    disk = disk or Disk()
    if folder.exists() and source.exists() and folder.samefile(source):
        raise InvalidInput(f"{source} is the folder to restore to.")
    verdict = verify_folder(source, tell)
    if verdict.store_problems:
        raise StoreDamaged(damage(source / FILE_NAME, verdict.store_problems))
    with FolderLock(folder):
        with translated(f"Cannot look at {folder}"):
            content = sorted({path.name for path in folder.iterdir()} - _NOT_CONTENT)
        if content and not force:
            raise InvalidInput(
                f"{folder} isn't empty ({', '.join(content[:5])}{', …' if content[5:] else ''}). "
                "With --force its index is moved aside, and nothing is deleted."
            )
        with incoming_folder(folder) as incoming:
            copied = copy_index(source, incoming, disk, tell)
            kept = _keep_index(folder, disk)
            put_in_place(incoming, folder, disk)
    return Restored(copied, kept)


def _keep_index(folder: Path, disk: Disk) -> Path | None:
    _forget_cut_off(folder)
    fold_log(folder)
    files = index_files(folder)
    if not files:
        return None
    place = unused(_beside(folder) if _can_link_beside(folder) else folder / "replaced")
    keep_aside(files, place, disk)
    return place


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.replaced")


def _can_link_beside(folder: Path) -> bool:
    """Whether a sibling can share files with the folder: not if the folder is a mount point."""
    probe = folder.with_name(f".{folder.name}.probe")
    try:
        probe.unlink(missing_ok=True)
        probe.hardlink_to(folder / ".lock")
        probe.unlink()
    except OSError:
        return False
    return True


def _forget_cut_off(folder: Path) -> None:
    """Remove second names of the present store: a run that was killed gave them.

    As long as the store is in use under another name, they are no copies of it.
    """
    store = folder / FILE_NAME
    with translated(f"Cannot look beside {folder}"):
        if not store.exists() or store.stat().st_nlink == 1:
            return
        places = [
            *folder.parent.glob(f"{_beside(folder).name}-*"),
            *folder.glob("replaced-*"),
        ]
        for place in places:
            if (place / FILE_NAME).exists() and (place / FILE_NAME).samefile(store):
                for file in place.iterdir():
                    file.unlink()
                place.rmdir()
