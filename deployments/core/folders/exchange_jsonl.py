"""Segments with their vectors as JSON Lines: a header, then a line a segment.

A vector is the base64 of its little-endian float32 values, so that its bits come back; ids and
times come back as the integers, strings or floats that they were.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from deployments.core.durable_files import Sink
from deployments.core.errors import InvalidInput
from deployments.core.folders.exchange_header import Header
from deployments.core.index.bulk_records import Record
from deployments.core.segments import EmbeddingType, Models, Segment, Vectors

_MAX_LINE_BYTES = 64 * 1024 * 1024
_BLOCK_BYTES = 1024 * 1024
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def write(header: Header, records: Iterable[Record], sink: Sink) -> None:
    """Write all records."""
    sink(_line(header.document()))
    for record in records:
        segment = record.segment
        sink(
            _line(
                {
                    "embedding_type": record.embedding_type.value,
                    "media_item_id": record.media_item_id,
                    "segment_id": segment.id,
                    "start_time": segment.start_time,
                    "end_time": segment.end_time,
                    "text": segment.text,
                    "metadata": segment.metadata,
                    "truncated": record.truncated,
                    "own_vector": record.own,
                    "vector": base64.b64encode(record.vector.astype("<f4").tobytes()).decode(),
                }
            )
        )


def _line(document: dict[str, Any]) -> bytes:
    return _JSON.encode(document).encode() + b"\n"


def read_header(path: Path) -> Header:
    """The header of a file that has as many segments as it says.

    Raises InvalidInput, StoreMismatch for a newer version, OSError.
    """
    with path.open("rb") as file:
        header = Header.read(_document(_next_line(file)))
        rows = _count_lines(file)
    if header.segments not in (None, rows):
        raise InvalidInput(
            f"its header says {header.segments} segments, but it has {rows} whole lines of them: "
            "it was cut off or changed. If that is as it should be, correct or remove `segments` "
            "in its first line"
        )
    return header


def read_records(path: Path, header: Header) -> Iterator[Record]:
    """The records, one after the other. Raises InvalidInput that names the line, OSError."""
    with path.open("rb") as file:
        _next_line(file)
        number = 1
        while line := _next_line(file):
            number += 1
            try:
                yield _record(_document(line), header.models)
            except InvalidInput as error:
                raise InvalidInput(f"line {number}: {error.detail}") from error


def _next_line(file: IO[bytes]) -> bytes:
    line = file.readline(_MAX_LINE_BYTES)
    if len(line) == _MAX_LINE_BYTES:
        raise InvalidInput(f"it has a line of more than {_MAX_LINE_BYTES} bytes")
    return line


def _count_lines(file: IO[bytes]) -> int:
    # A last line without an end was cut off.
    return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK_BYTES), b""))


def _document(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"it is no JSON: {error}") from error


def _record(document: Any, models: Models) -> Record:
    if not isinstance(document, dict):
        raise InvalidInput(f"it is a {type(document).__name__}, expected an object")
    lacking = {"embedding_type", "media_item_id", "segment_id", "text", "vector"} - document.keys()
    if lacking:
        raise InvalidInput(f"it lacks {', '.join(sorted(lacking))}")
    kind, metadata = document["embedding_type"], document.get("metadata", {})
    if kind not in list(EmbeddingType):
        raise InvalidInput(
            f"embedding_type is {kind!r}, expected one of {', '.join(EmbeddingType)}"
        )
    if not isinstance(metadata, dict):
        raise InvalidInput(f"metadata is a {type(metadata).__name__}, expected an object")
    return Record(
        EmbeddingType(kind),
        document["media_item_id"],
        Segment(
            document["segment_id"],
            document["text"],
            document.get("start_time"),
            document.get("end_time"),
            metadata,
        ),
        _vector(document["vector"], models[EmbeddingType(kind)].dimension),
        bool(document.get("truncated", False)),
        bool(document.get("own_vector", False)),
    )


def _vector(text: Any, dimension: int) -> Vectors:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidInput(f"vector is no base64: {error}") from error
    if len(data) != 4 * dimension:
        raise InvalidInput(
            f"vector has {len(data)} bytes, expected {4 * dimension} ({dimension} float32)"
        )
    return np.frombuffer(data, "<f4").astype(np.float32, copy=False)
