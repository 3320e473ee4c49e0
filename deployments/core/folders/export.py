"""Everything in an index folder as one file, and such a file into a folder again."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from deployments.core.durable_files import Disk, Sink
from deployments.core.errors import InvalidInput, ServiceError, StoreDamaged, StoreMismatch
from deployments.core.folders import exchange_jsonl, exchange_parquet
from deployments.core.folders.exchange_header import Header
from deployments.core.folders.folder_view import FolderView, read_folder
from deployments.core.index.bulk_records import Record, Stored, store_records
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, Models
from deployments.core.storage.segment_rows import is_own, segment_from
from deployments.core.storage.store_inspection import exists
from deployments.core.storage.stored_rows import COLUMNS, is_intact
from deployments.core.storage_errors import RESTORE, translated
from deployments.core.telling import Tell, tell_nobody, told

_ROWS_AT_ONCE = 1000


class Format(StrEnum):
    """Forms of an exported file."""

    JSONL = "jsonl"
    PARQUET = "parquet"


_MODULES: dict[Format, ModuleType] = {
    Format.JSONL: exchange_jsonl,
    Format.PARQUET: exchange_parquet,
}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    models: Models
    segments: dict[EmbeddingType, int]
    file_bytes: int


def export_folder(
    folder: Path,
    path: Path,
    form: Format | None = None,
    disk: Disk | None = None,
    *,
    tell: Tell = tell_nobody,
) -> Exported:
    """Write all segments of a folder with their vectors, beside a running service or not.

    All are of one moment, in the order in which they were stored. The file, Parquet if its name
    ends so and else JSON Lines, is replaced when it is complete and durable; memory doesn't grow
    with it. Raises InvalidInput, StoreDamaged for a row that isn't what was stored, StoreError.
    """

    def export(view: FolderView) -> Exported:
        return write_records(path, form, view.models, view.counts(), _records(view), disk, tell)

    return read_folder(folder, export)


def write_records(
    path: Path,
    form: Format | None,
    models: Models,
    counts: dict[EmbeddingType, int],
    records: Iterable[Record],
    disk: Disk | None = None,
    tell: Tell = tell_nobody,
) -> Exported:
    """Write records, of which there are `counts`; see export_folder. Raises StoreUnwritable."""
    if form is None:
        form = Format.PARQUET if path.suffix.lower() == ".parquet" else Format.JSONL
    write, header = _MODULES[form].write, Header(models, sum(counts.values()))

    def produce(sink: Sink) -> None:
        write(header, told(tell, "Writing segments", records, header.segments), sink)

    with translated(f"Cannot write {path}"):
        (disk or Disk()).write_atomically(path, produce)
        return Exported(models, counts, path.stat().st_size)


def _records(view: FolderView) -> Iterator[Record]:
    with translated("Cannot read the store"):
        rows = view.reader.connection.execute(
            f"SELECT {COLUMNS}, vector FROM segments LEFT JOIN vectors USING (seq) ORDER BY seq"
        )
    while True:
        with translated("Cannot read the store"):
            block = rows.fetchmany(_ROWS_AT_ONCE)
        if not block:
            return
        for *row, vector in block:
            if not is_intact(row, vector):
                raise StoreDamaged(
                    f"Row {row[0]} of {view.folder} is not what was stored. {RESTORE}"
                )
            yield record_of(row, vector)


def record_of(row: Sequence[Any], vector: bytes) -> Record:
    """A row that was found intact, as it is exported."""
    seq, kind, media_item_id, *fields, hashed, truncated, _ = row
    return Record(
        EmbeddingType(kind),
        media_item_id,
        segment_from(seq, fields),
        np.frombuffer(vector, "<f4").astype(np.float32, copy=False),
        bool(truncated),
        is_own(hashed),
    )


@dataclass(frozen=True, slots=True)
class Imported:
    """What was read and stored."""

    models: Models
    stored: Stored


def import_file(path: Path, folder: Path, *, tell: Tell = tell_nobody) -> Imported:
    """Store the segments of an exported file, with its vectors, in a new or existing folder.

    A segment that is there already is replaced by the file's. A run that was cut off has stored a
    part of them, and the same call stores the rest.

    Raises InvalidInput that names what is wrong and where, StoreMismatch for a newer version or
    another model than the folder's, FolderLocked if a service uses the folder, StoreError.
    """
    with translated(f"Cannot read {path}"):
        with path.open("rb") as file:
            start = file.read(len(exchange_parquet.MAGIC))
        form = exchange_parquet if start == exchange_parquet.MAGIC else exchange_jsonl
        try:
            header = form.read_header(path)
        except (InvalidInput, StoreMismatch) as error:
            raise type(error)(_refusal(path, error)) from error
        _require_models(folder, header.models)
        with SegmentIndex.open(folder, header.models) as index:
            try:
                records = form.read_records(path, header)
                stored = store_records(
                    index, told(tell, "Storing segments", records, header.segments)
                )
            except InvalidInput as error:
                raise InvalidInput(_refusal(path, error)) from error
    return Imported(header.models, stored)


def _refusal(path: Path, error: ServiceError) -> str:
    return f"{path} can't be imported: {error.detail.rstrip('.')}."


def _require_models(folder: Path, models: Models) -> None:
    if not exists(folder):
        return
    for kind, present in read_folder(folder, lambda view: view.models).items():
        model = models[kind]
        if not present.makes_the_same_as(model):
            raise StoreMismatch(
                f"The file has {kind} vectors of model {model.name} ({model.dimension} "
                f"dimensions, fingerprint {model.fingerprint[:12]}), but {folder} of "
                f"{present.name} ({present.dimension} dimensions, fingerprint "
                f"{present.fingerprint[:12]}). Vectors of two models can't be compared: import "
                "into a new folder."
            )
