"""What is intact of a damaged folder as a file that can be imported into a new one."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from deployments.core.damage import Salvage
from deployments.core.durable_files import Disk
from deployments.core.errors import StoreDamaged
from deployments.core.folders.export import Exported, Format, record_of, write_records
from deployments.core.folders.folder_view import FolderView, read_folder
from deployments.core.folders.salvage import DamagedStore, nothing_is_provable
from deployments.core.folders.salvage_source import readable_folder
from deployments.core.segments import EmbeddingType
from deployments.core.telling import Tell, tell_nobody, told


@dataclass(frozen=True, slots=True)
class SalvagedExport:
    """What was written, and what could not be."""

    exported: Exported
    salvage: Salvage


def export_salvage(
    folder: Path,
    path: Path,
    form: Format | None = None,
    disk: Disk | None = None,
    *,
    tell: Tell = tell_nobody,
) -> SalvagedExport:
    """Write all rows of a damaged folder that are provably intact; see export_folder.

    Reads the store twice, and changes nothing in the folder. Raises StoreDamaged if nothing can
    be proven, StoreError.
    """

    def export(view: FolderView) -> SalvagedExport:
        store = DamagedStore(view)
        found = Counter(row[1] for row, _ in told(tell, "Reading segments", store.rows()))
        counts = {kind: found[kind.value] for kind in EmbeddingType}
        salvage = store.salvage()
        records = (record_of(row, vector) for row, vector in store.rows())
        exported = write_records(path, form, view.models, counts, records, disk, tell)
        if store.salvage() != salvage:
            raise StoreDamaged(
                f"{folder} could be read less well the second time: its disk is failing. Copy the "
                f"folder to another disk and export from there; {path} is not complete."
            )
        return SalvagedExport(exported, salvage)

    try:
        with readable_folder(folder) as readable:
            return read_folder(readable, export)
    except StoreDamaged as error:
        raise nothing_is_provable(folder, error) from error
