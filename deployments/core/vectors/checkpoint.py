"""`<type>_index.faiss`: one type's vectors in Faiss' own format, stamped and checked.

    Faiss file (IndexIDMap2 of IndexFlatIP, ids are sequence numbers, ascending)
    JSON stamp │ SHA-256 of the stamp │ length of the stamp, 4 bytes LE │ magic, 8 bytes

faiss.read_index ignores what follows the Faiss file. A checkpoint is disposable: whatever is
wrong with it, the store can rebuild it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from deployments.core.durable_files import Disk, Reader, Sink
from deployments.core.segments import EmbeddingType, Vectors

FORMAT = 1
MAGIC = b"EMBSCKP1"
_TAIL_BYTES = 32 + 4 + len(MAGIC)
_IO_BLOCK_BYTES = 1024 * 1024
_MAX_STAMP_BYTES = 64 * 1024


class Flaw(StrEnum):
    """Why a checkpoint can't be used."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated, or not written by this service"
    CHECKSUM = "checksum"
    OTHER_FORMAT = "other format"
    OTHER_MODEL = "other model"
    OTHER_STORE = "other store"
    NEWER = "newer than the store"
    CONTENT = "content"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a checkpoint holds: rows of `store_id` at `commit_id`, the last of them `last_seq`."""

    embedding_type: str
    fingerprint: str
    dimension: int
    rows: int
    last_seq: int
    store_id: str
    commit_id: int


@dataclass(frozen=True, slots=True)
class Unusable:
    """A checkpoint that can't be used, with a reason for people."""

    flaw: Flaw
    reason: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Sequence numbers, int64 (rows,), ascending, and their vectors, float32 (rows, dimension)."""

    stamp: Stamp
    sequences: npt.NDArray[np.int64]
    vectors: Vectors
    memory: object
    """What `vectors` looks into; it must live as long."""


def path_of(folder: Path, embedding_type: EmbeddingType) -> Path:
    """Where a type's checkpoint lies."""
    return folder / f"{embedding_type.value}_index.faiss"


def write(
    path: Path,
    stamp: Stamp,
    blocks: Iterator[tuple[npt.NDArray[np.int64], Vectors]],
    disk: Disk,
) -> None:
    """Replace the checkpoint by one of the rows in `blocks`, ascending by sequence number.

    Raises OSError; the old checkpoint is then still there.
    """
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(stamp.dimension))
    for sequences, vectors in blocks:
        index.add_with_ids(vectors, sequences)
    write_index(path, stamp, index, disk)


def write_index(path: Path, stamp: Stamp, index: Any, disk: Disk) -> None:
    """Replace a file by a Faiss index, stamped. Raises OSError; the old file is then still there.

    What raises in `disk` ends the writing, whatever it is.
    """

    def produce(sink: Sink) -> None:
        digest = hashlib.sha256()
        failures: list[BaseException] = []

        def write_block(data: bytes) -> int:
            # An exception can't pass through Faiss; it must not go on writing after one either.
            if not failures:
                try:
                    digest.update(data)
                    sink(data)
                except BaseException as error:
                    failures.append(error)
            return len(data)

        writer = faiss.PyCallbackIOWriter(  # type: ignore[attr-defined]
            write_block, _IO_BLOCK_BYTES
        )
        faiss.write_index(index, writer)
        if failures:
            raise failures[0]
        sink(trailer(stamp, digest.hexdigest()))

    disk.write_atomically(path, produce)


def trailer(stamp: Stamp, sha256: str) -> bytes:
    """The bytes after a Faiss file with this digest."""
    text = json.dumps({"format": FORMAT, **asdict(stamp), "sha256": sha256}).encode()
    return text + hashlib.sha256(text).digest() + len(text).to_bytes(4, "little") + MAGIC


def has_trailer(path: Path, disk: Disk) -> bool:
    """Whether the file is a checkpoint of this service, whole or not. Raises OSError."""
    with disk.reading(path) as file:
        return _read_trailer(file) is not None


def load(path: Path, expected: Stamp, disk: Disk) -> Checkpoint | Unusable:
    """Read a checkpoint that fits the store, as load_index does."""
    loaded = load_index(path, expected, disk)
    if isinstance(loaded, Unusable):
        return loaded
    stamp, index = loaded
    flat: Any = faiss.downcast_index(index.index)
    if not isinstance(flat, faiss.IndexFlat):
        return Unusable(Flaw.CONTENT, f"{path.name} holds an {type(flat).__name__}")
    sequences = faiss.vector_to_array(index.id_map)
    vectors = faiss.rev_swig_ptr(flat.get_xb(), stamp.rows * stamp.dimension)
    return Checkpoint(stamp, sequences, vectors.reshape(stamp.rows, stamp.dimension), index)


def load_index(path: Path, expected: Stamp, disk: Disk) -> tuple[Stamp, Any] | Unusable:
    """Read a stamped IndexIDMap2 that fits the store; its bytes are checked before Faiss sees them.

    `expected` says type, model and store; `commit_id` and `last_seq` are the store's present
    ones, which the file's must not exceed; `rows` doesn't count.
    """
    try:
        with disk.reading(path) as file:
            return _load(path, file, expected)
    except FileNotFoundError:
        return Unusable(Flaw.MISSING, f"{path.name} is missing")
    except OSError as error:
        return Unusable(Flaw.UNREADABLE, f"{path.name} can't be read: {error}")


def _load(path: Path, file: Reader, expected: Stamp) -> tuple[Stamp, Any] | Unusable:
    def unusable(flaw: Flaw, reason: str) -> Unusable:
        return Unusable(flaw, f"{path.name} {reason}")

    found = _read_trailer(file)
    if found is None:
        return unusable(Flaw.TRUNCATED, "is cut off, or was not written by this service")
    fields, body_bytes = found
    if fields.get("format") != FORMAT:
        return unusable(Flaw.OTHER_FORMAT, f"has format {fields.get('format')}, not {FORMAT}")
    sha256 = fields.pop("sha256")
    fields.pop("format")
    stamp = Stamp(**fields)
    if stamp.store_id != expected.store_id:
        return unusable(Flaw.OTHER_STORE, "belongs to another store")
    if (stamp.embedding_type, stamp.fingerprint, stamp.dimension) != (
        expected.embedding_type,
        expected.fingerprint,
        expected.dimension,
    ):
        return unusable(Flaw.OTHER_MODEL, "holds vectors of another model or type")
    if stamp.commit_id > expected.commit_id or stamp.last_seq > expected.last_seq:
        return unusable(
            Flaw.NEWER,
            f"holds commit {stamp.commit_id} (row {stamp.last_seq}), the store only commit "
            f"{expected.commit_id} (row {expected.last_seq})",
        )
    file.seek(0)
    digest = hashlib.sha256()
    for block in file.blocks(body_bytes):
        digest.update(block)
    if digest.hexdigest() != sha256:
        return unusable(Flaw.CHECKSUM, "is damaged: its checksum differs")
    file.seek(0)
    return _parse(file, stamp, unusable)


def _read_trailer(file: Reader) -> tuple[dict[str, Any], int] | None:
    """The stamp's fields and the length of what precedes it, or None without a whole trailer."""
    if file.size < _TAIL_BYTES:
        return None
    file.seek(file.size - _TAIL_BYTES)
    tail = file.read(_TAIL_BYTES)
    length = int.from_bytes(tail[32:36], "little")
    if not tail.endswith(MAGIC) or length > min(_MAX_STAMP_BYTES, file.size - _TAIL_BYTES):
        return None
    body_bytes = file.size - _TAIL_BYTES - length
    file.seek(body_bytes)
    text = file.read(length)
    if hashlib.sha256(text).digest() != tail[:32]:
        return None
    return json.loads(text), body_bytes


def _parse(
    file: Reader, stamp: Stamp, unusable: Callable[[Flaw, str], Unusable]
) -> tuple[Stamp, Any] | Unusable:
    reader = faiss.PyCallbackIOReader(file.read, _IO_BLOCK_BYTES)  # type: ignore[attr-defined]
    try:
        index = faiss.read_index(reader)
    except RuntimeError as error:
        return unusable(Flaw.CONTENT, f"can't be read by Faiss: {error}")
    if not isinstance(index, faiss.IndexIDMap2):
        return unusable(Flaw.CONTENT, f"holds an {type(index).__name__}")
    if (index.ntotal, index.d, index.id_map.size()) != (stamp.rows, stamp.dimension, stamp.rows):
        return unusable(Flaw.CONTENT, f"holds {index.ntotal} rows, its stamp says {stamp.rows}")
    return stamp, index
