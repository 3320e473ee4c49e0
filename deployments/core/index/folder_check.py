"""What can be told about an index folder before anything in it is opened for writing."""

import logging
import os
from contextlib import suppress
from pathlib import Path

from deployments.core.durable_files import Disk
from deployments.core.errors import LegacyFolder, StoreDamaged
from deployments.core.segments import EmbeddingType
from deployments.core.storage import commit_mark
from deployments.core.storage.store_inspection import FILE_NAME, exists
from deployments.core.storage_errors import translated
from deployments.core.vectors import checkpoint

logger = logging.getLogger(__name__)

_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "beegfs"}


def refuse_without_store(folder: Path, disk: Disk) -> None:
    """Raise if the folder has no store but holds an index all the same.

    LegacyFolder: files of the service that this one replaces. StoreDamaged: checkpoints, a
    write-ahead log or the commit mark of this one, whose store is gone.
    """
    if exists(folder):
        return
    ours: list[str] = []
    old: list[str] = []
    with translated(f"Cannot read {folder}"):
        log = folder / f"{FILE_NAME}-wal"
        if log.exists() and log.stat().st_size > 0:
            ours.append(log.name)
        for embedding_type in EmbeddingType:
            path = checkpoint.path_of(folder, embedding_type)
            if path.exists():
                (ours if checkpoint.has_trailer(path, disk) else old).append(path.name)
            pickle = folder / f"{embedding_type.value}_metadata.pkl"
            if pickle.exists():
                old.append(pickle.name)
    if commit_mark.tells_of_commits(folder):
        ours.append(commit_mark.FILE_NAME)
    if ours:
        raise StoreDamaged(
            f"{folder} has {', '.join(ours)} but no {FILE_NAME}, which holds the segments. "
            f"Restore {FILE_NAME} from a backup; or, to start empty, delete {' and '.join(ours)} "
            "and send the media items again."
        )
    if old:
        raise LegacyFolder(
            f"{folder} holds files of the service that this one replaces ({', '.join(old)}). Run "
            f"`embeddings-service import-legacy` once, or choose another FAISS_INDEX_DIR."
        )


def folder_state(folder: Path) -> frozenset[tuple[str, int, int, int]]:
    """What changes when somebody puts another file into the folder, or writes to one."""
    found = set()
    with suppress(OSError):
        for entry in os.scandir(folder):
            # What SQLite's readers share, and the lock, change while nobody changes anything.
            if not entry.name.endswith("-shm") and entry.name != ".lock":
                stat = entry.stat()
                found.add((entry.name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return frozenset(found)


def warn_of_network_file_system(folder: Path) -> None:
    """Log a warning if the folder is on a network file system."""
    kind = network_file_system(folder)
    if kind is not None:
        logger.warning(
            "%s is on a network file system (%s), where SQLite's locking can't be trusted: put "
            "FAISS_INDEX_DIR on a local disk or a block volume.",
            folder,
            kind,
        )


def network_file_system(folder: Path) -> str | None:
    """The kind of network file system that holds the folder, or None on a local disk."""
    path = os.path.realpath(folder)
    best, kind = "", ""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return None
    for mount in mounts:
        _, point, found, *_ = mount.split(" ")
        point = point.replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind if kind in _NETWORK or kind.startswith("fuse.") else None
