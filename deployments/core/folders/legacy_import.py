"""Moves the index of the service that this one replaces into a store, without encoding again."""

from dataclasses import dataclass
from pathlib import Path

from deployments.core.durable_files import Disk
from deployments.core.errors import InvalidInput, StoreDamaged
from deployments.core.folders.folder_install import (
    fold_log,
    incoming_folder,
    keep_aside,
    put_in_place,
    same_content,
    unused,
)
from deployments.core.folders.folder_verify import verify_folder
from deployments.core.folders.legacy_files import legacy_files
from deployments.core.folders.legacy_types import ImportedType, LegacyTypes, SampleCheck
from deployments.core.index import folder_check
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, ModelIdentity, Models
from deployments.core.storage.folder_lock import FolderLock
from deployments.core.storage.store_inspection import FILE_NAME, exists
from deployments.core.storage_errors import translated
from deployments.core.telling import Tell, tell_nobody

LEGACY = "legacy"
"""Subfolder for the old files, where they lay in the folder that they were imported to."""


@dataclass(frozen=True, slots=True)
class ImportedLegacy:
    """What was imported, and where the old files are; `types` is empty if it had been before."""

    types: dict[EmbeddingType, ImportedType]
    legacy_folder: Path


def import_legacy(
    source: Path,
    folder: Path,
    models: ModelIdentity | Models,
    *,
    skip_bad_rows: bool = False,
    check: SampleCheck | None = None,
    disk: Disk | None = None,
    tell: Tell = tell_nobody,
) -> ImportedLegacy:
    """Make a store of the old service's files in `source`, in a folder that has none yet.

    All or nothing: if a row of any type can't be taken, nothing is imported, unless
    `skip_bad_rows`. If `source` is `folder`, the old files move to its subfolder `legacy` once
    the store is durable. After a kill at any moment the old files are whole, and the same call
    finishes the import or starts it anew; after a finished one it changes nothing.

    Raises InvalidInput for files that can't be taken, with their rows; FolderLocked if a service
    uses the folder; LegacyFolder, StoreError.
    """
    disk = disk or Disk()
    if not source.is_dir():
        raise InvalidInput(f"{source} is not a folder.")
    with FolderLock(folder):
        in_place = folder.samefile(source)
        if in_place and exists(folder):
            return _finish(folder, disk)
        files = legacy_files(source)
        if not files:
            raise InvalidInput(f"{source} has no files of the old service.")
        _require_no_store(folder, in_place, disk)
        with incoming_folder(folder) as incoming:
            with SegmentIndex.open(incoming, models) as index:
                types = LegacyTypes(source, index, skip_bad_rows, check, tell).store(list(files))
            fold_log(incoming)
            _require_whole(incoming, types, disk, tell)
            kept = source
            if in_place:
                old = [path for paths in files.values() for path in paths]
                kept = _keep_legacy(folder, old, disk)
            put_in_place(incoming, folder, disk)
    return ImportedLegacy(types, kept)


def _require_no_store(folder: Path, in_place: bool, disk: Disk) -> None:
    if exists(folder):
        raise InvalidInput(
            f"{folder} has a store already. Import into a new folder; to bring both together, "
            "export that one and import the file here."
        )
    if not in_place:
        folder_check.refuse_without_store(folder, disk)


def _require_whole(
    incoming: Path, types: dict[EmbeddingType, ImportedType], disk: Disk, tell: Tell
) -> None:
    verdict = verify_folder(incoming, tell)
    expected = {kind: types[kind].imported if kind in types else 0 for kind in EmbeddingType}
    if verdict.problems or verdict.segments != expected:
        raise StoreDamaged(
            f"What was written to {incoming} isn't what was read: "
            f"{verdict.problems or verdict.segments}. Check the disk (dmesg)."
        )
    with translated(f"Cannot make {incoming} durable"):
        with (incoming / FILE_NAME).open("rb") as file:
            disk.sync(file.fileno())
        disk.sync_folder(incoming)


def _keep_legacy(folder: Path, files: list[Path], disk: Disk) -> Path:
    place = folder / LEGACY
    with translated(f"Cannot keep the old files in {place}"):
        others = [
            file
            for file in files
            if (place / file.name).exists() and not same_content(place / file.name, file)
        ]
    if others:
        place = unused(place)
    keep_aside(files, place, disk)
    return place


def _finish(folder: Path, disk: Disk) -> ImportedLegacy:
    """Do what is left of an import whose store is in place already, if there was one."""
    left = [path for paths in legacy_files(folder).values() for path in paths]
    for place in sorted(folder.glob(f"{LEGACY}*")):
        if not legacy_files(place):
            continue
        with translated(f"Cannot remove what is in {place} from {folder}"):
            kept = [(place / file.name).exists() for file in left]
            if all(kept) and all(same_content(place / file.name, file) for file in left):
                for file in left:
                    file.unlink()
                disk.sync_folder(folder)
                with incoming_folder(folder):
                    pass  # removes what the killed run has left in it
                return ImportedLegacy({}, place)
    raise InvalidInput(f"{folder} has a store of this service already; nothing was imported.")
