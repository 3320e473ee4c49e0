"""Segments with their vectors as Parquet, for pandas, DuckDB, Polars and the like.

The header is in the schema's metadata. A column of Parquet has one type: an id is a string, and
`…_is_integer` says whether it was an integer; a time is a float, and one that was an integer is
in `…_integer` too. `metadata` is JSON.
"""

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deployments.core.durable_files import Sink
from deployments.core.errors import InvalidInput
from deployments.core.folders.exchange_header import Header
from deployments.core.folders.pyarrow_modules import import_pyarrow
from deployments.core.index.bulk_records import Record, batches
from deployments.core.segments import EmbeddingType, Id, Models, Segment

MAGIC = b"PAR1"
"""The first bytes of a Parquet file."""

_HEADER_KEY = b"embeddings-service"
_OWN = "own_vector"
_ROWS_AT_ONCE = 1024
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def write(header: Header, records: Iterable[Record], sink: Sink) -> None:
    """Write all records, 1024 in a row group. Raises InvalidInput if pyarrow isn't installed."""
    arrow, parquet = import_pyarrow()
    schema = _schema(arrow, header.models).with_metadata(
        {_HEADER_KEY: _JSON.encode(header.document())}
    )
    with parquet.ParquetWriter(
        _SinkFile(sink), schema, compression="zstd", write_page_checksum=True
    ) as writer:
        for batch in batches(records, _ROWS_AT_ONCE):
            writer.write_batch(_arrow_batch(arrow, schema, batch))


def read_header(path: Path) -> Header:
    """The header of a file that has as many segments as it says.

    Raises InvalidInput, also if pyarrow isn't installed, StoreMismatch for a newer version,
    OSError.
    """
    arrow, parquet = import_pyarrow()
    with _invalid(arrow), parquet.ParquetFile(path) as file:
        metadata = file.schema_arrow.metadata or {}
        header = Header.read(json.loads(metadata.get(_HEADER_KEY, b"null")))
        expected = _schema(arrow, header.models)
        # The first version had no vectors but those of texts.
        older = expected.remove(expected.get_field_index(_OWN))
        if not any(file.schema_arrow.equals(each) for each in (expected, older)):
            raise InvalidInput(
                f"its columns aren't those of an export; expected {_names(expected)}, found "
                f"{_names(file.schema_arrow)}"
            )
        rows = file.metadata.num_rows
        if header.segments not in (None, rows):
            raise InvalidInput(f"its header says {header.segments} segments, but it has {rows}")
        return header


def read_records(path: Path, header: Header) -> Iterator[Record]:
    """The records, one after the other. Raises InvalidInput that names the row, OSError."""
    arrow, parquet = import_pyarrow()
    number = 0
    with _invalid(arrow), parquet.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
            columns = batch.drop_columns(["vector"]).to_pylist()
            values = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
            dimensions = [_dimension(row, header.models) for row in columns]
            if len(values) != sum(dimensions):
                raise InvalidInput(f"a vector is missing among rows {number + 1} and following")
            vectors = np.split(values, np.cumsum(dimensions)[:-1])
            for row, vector in zip(columns, vectors, strict=True):
                number += 1
                try:
                    yield Record(*_place(row), vector, bool(row["truncated"]), bool(row.get(_OWN)))
                except (InvalidInput, ValueError, RecursionError) as error:
                    raise InvalidInput(f"row {number}: {error}") from error


def _dimension(row: dict[str, Any], models: Models) -> int:
    """The dimension of a row's vector; of a row with a wrong type, which is refused later, any."""
    kind = row["embedding_type"]
    known = kind in list(EmbeddingType)
    return models[EmbeddingType(kind) if known else EmbeddingType.TRANSCRIPT].dimension


def _schema(arrow: Any, models: Models) -> Any:
    dimensions = {model.dimension for model in models.values()}
    # Lists of one length where all have it: readers get a matrix then.
    length = dimensions.pop() if len(dimensions) == 1 else -1
    required = {"nullable": False}
    return arrow.schema(
        [
            arrow.field("embedding_type", arrow.string(), **required),
            arrow.field("media_item_id", arrow.string(), **required),
            arrow.field("media_item_id_is_integer", arrow.bool_(), **required),
            arrow.field("segment_id", arrow.string(), **required),
            arrow.field("segment_id_is_integer", arrow.bool_(), **required),
            arrow.field("start_time", arrow.float64()),
            arrow.field("start_time_integer", arrow.int64()),
            arrow.field("end_time", arrow.float64()),
            arrow.field("end_time_integer", arrow.int64()),
            arrow.field("text", arrow.string(), **required),
            arrow.field("metadata", arrow.string(), **required),
            arrow.field("truncated", arrow.bool_(), **required),
            arrow.field(_OWN, arrow.bool_(), **required),
            arrow.field(
                "vector",
                arrow.list_(arrow.field("element", arrow.float32(), nullable=False), length),
                **required,
            ),
        ]
    )


def _names(schema: Any) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def _arrow_batch(arrow: Any, schema: Any, batch: list[Record]) -> Any:
    rows = [_row(record) for record in batch]
    *fields, vector = schema
    columns = [arrow.array([row[field.name] for row in rows], field.type) for field in fields]
    columns.append(arrow.array([record.vector for record in batch], vector.type))
    return arrow.RecordBatch.from_arrays(columns, schema=schema)


def _row(record: Record) -> dict[str, Any]:
    segment = record.segment
    return {
        "embedding_type": record.embedding_type.value,
        "media_item_id": str(record.media_item_id),
        "media_item_id_is_integer": isinstance(record.media_item_id, int),
        "segment_id": str(segment.id),
        "segment_id_is_integer": isinstance(segment.id, int),
        "start_time": None if segment.start_time is None else float(segment.start_time),
        "start_time_integer": segment.start_time if isinstance(segment.start_time, int) else None,
        "end_time": None if segment.end_time is None else float(segment.end_time),
        "end_time_integer": segment.end_time if isinstance(segment.end_time, int) else None,
        "text": segment.text,
        "metadata": _JSON.encode(segment.metadata),
        "truncated": record.truncated,
        _OWN: record.own,
    }


def _place(row: dict[str, Any]) -> tuple[EmbeddingType, Id, Segment]:
    metadata = json.loads(row["metadata"])
    if not isinstance(metadata, dict):
        raise InvalidInput(f"metadata is a {type(metadata).__name__}, expected an object")
    return (
        EmbeddingType(row["embedding_type"]),
        _id(row, "media_item_id"),
        Segment(
            _id(row, "segment_id"),
            row["text"],
            _time(row, "start_time"),
            _time(row, "end_time"),
            metadata,
        ),
    )


def _id(row: dict[str, Any], name: str) -> Id:
    value: str = row[name]
    return int(value) if row[f"{name}_is_integer"] else value


def _time(row: dict[str, Any], name: str) -> float | int | None:
    exact: int | None = row[f"{name}_integer"]
    seconds: float | None = row[name]
    return seconds if exact is None else exact


@contextmanager
def _invalid(arrow: Any) -> Iterator[None]:
    try:
        yield
    except arrow.ArrowException as error:
        raise InvalidInput(f"it can't be read as Parquet: {error}") from error
    except OSError as error:
        # pyarrow reports a damaged page so, without an error number.
        if error.errno is not None:
            raise
        raise InvalidInput(f"it can't be read as Parquet: {error}") from error


class _SinkFile(io.RawIOBase):
    """A file to write only, for pyarrow."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        block = bytes(data)
        self._sink(block)
        self._written += len(block)
        return len(block)

    def tell(self) -> int:
        return self._written
