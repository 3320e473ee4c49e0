import errno
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from faulty_disk import FaultyDisk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage_samples import DIMENSION, MODEL, random_units

from deployments.core.durable_files import Disk, remove_temporary_files
from deployments.core.vectors import checkpoint
from deployments.core.vectors.checkpoint import Checkpoint, Flaw, Stamp, Unusable

DISK = Disk()
ROWS = 50
SEQUENCES = np.arange(3, 3 + 2 * ROWS, 2)
VECTORS = random_units(ROWS)
STAMP = Stamp("transcript", MODEL.fingerprint, DIMENSION, ROWS, 120, "store-1", 17)


def write(path: Path, stamp: Stamp = STAMP, disk: Disk = DISK) -> None:
    halves = [(SEQUENCES[:20], VECTORS[:20]), (SEQUENCES[20:], VECTORS[20:])]
    checkpoint.write(path, stamp, iter(halves if stamp.rows else []), disk)


def flaw_of(path: Path, expected: Stamp = STAMP, disk: Disk = DISK) -> Flaw:
    loaded = checkpoint.load(path, expected, disk)
    assert isinstance(loaded, Unusable)
    assert path.name in loaded.reason
    return loaded.flaw


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "transcript_index.faiss"


def test_faiss_reads_it(path: Path) -> None:
    write(path)
    index = faiss.read_index(str(path))
    assert isinstance(index, faiss.IndexIDMap2)
    assert isinstance(faiss.downcast_index(index.index), faiss.IndexFlatIP)
    assert faiss.vector_to_array(index.id_map).tolist() == SEQUENCES.tolist()
    scores, sequences = index.search(VECTORS[7:8], 1)
    assert (sequences.tolist(), scores[0, 0]) == ([[SEQUENCES[7]]], pytest.approx(1.0, abs=1e-6))
    assert np.array_equal(index.reconstruct(int(SEQUENCES[9])), VECTORS[9])


def test_what_was_written_is_loaded(path: Path) -> None:
    write(path)
    loaded = checkpoint.load(path, replace(STAMP, commit_id=99, last_seq=999, rows=0), DISK)
    assert isinstance(loaded, Checkpoint)
    assert loaded.stamp == STAMP
    assert np.array_equal(loaded.sequences, SEQUENCES)
    assert np.array_equal(loaded.vectors, VECTORS)
    assert loaded.sequences.dtype == np.int64
    assert loaded.vectors.flags.c_contiguous


def test_an_empty_checkpoint(path: Path) -> None:
    write(path, replace(STAMP, rows=0))
    assert faiss.read_index(str(path)).ntotal == 0
    loaded = checkpoint.load(path, STAMP, DISK)
    assert isinstance(loaded, Checkpoint)
    assert loaded.vectors.shape == (0, DIMENSION)


def test_only_its_own_trailer_is_recognised(path: Path) -> None:
    write(path)
    assert checkpoint.has_trailer(path, DISK)
    faiss.write_index(faiss.IndexFlatL2(4), str(path))
    assert not checkpoint.has_trailer(path, DISK)
    assert flaw_of(path) is Flaw.TRUNCATED
    path.write_bytes(b"")
    assert not checkpoint.has_trailer(path, DISK)


@pytest.mark.parametrize(
    ("expected", "flaw"),
    [
        (replace(STAMP, fingerprint="00" * 32), Flaw.OTHER_MODEL),
        (replace(STAMP, dimension=8), Flaw.OTHER_MODEL),
        (replace(STAMP, embedding_type="frame"), Flaw.OTHER_MODEL),
        (replace(STAMP, store_id="store-2"), Flaw.OTHER_STORE),
        (replace(STAMP, store_id="store-2", commit_id=1), Flaw.OTHER_STORE),
        (replace(STAMP, commit_id=16), Flaw.NEWER),
        (replace(STAMP, last_seq=119), Flaw.NEWER),
    ],
)
def test_a_checkpoint_of_something_else(path: Path, expected: Stamp, flaw: Flaw) -> None:
    write(path)
    assert flaw_of(path, expected) is flaw


def test_a_missing_file(path: Path) -> None:
    assert flaw_of(path) is Flaw.MISSING


def test_an_unreadable_file(path: Path) -> None:
    path.mkdir()
    assert flaw_of(path) is Flaw.UNREADABLE


def test_another_format(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    write(path)
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    assert flaw_of(path) is Flaw.OTHER_FORMAT


def stamped(body: bytes, stamp: Stamp = STAMP) -> bytes:
    return body + checkpoint.trailer(stamp, hashlib.sha256(body).hexdigest())


def test_content_that_is_not_what_the_stamp_says(path: Path) -> None:
    flat = faiss.IndexFlatIP(DIMENSION)
    flat.add(VECTORS)
    path.write_bytes(stamped(faiss.serialize_index(flat).tobytes()))
    assert flaw_of(path) is Flaw.CONTENT
    path.write_bytes(stamped(b"not an index"))
    assert flaw_of(path) is Flaw.CONTENT
    write(path)
    body = path.read_bytes()[: path.read_bytes().index(b'{"format"')]
    path.write_bytes(stamped(body, replace(STAMP, rows=ROWS - 1)))
    assert flaw_of(path) is Flaw.CONTENT
    path.write_bytes(stamped(body, replace(STAMP, dimension=8)))
    assert flaw_of(path, replace(STAMP, dimension=8)) is Flaw.CONTENT


def test_the_stamp_is_readable_json(path: Path) -> None:
    write(path)
    content = path.read_bytes()
    text = content[content.index(b'{"format"') : -(32 + 4 + 8)]
    fields = json.loads(text)
    body = content[: content.index(b'{"format"')]
    assert fields.pop("sha256") == hashlib.sha256(body).hexdigest()
    assert fields.pop("format") == checkpoint.FORMAT
    assert Stamp(**fields) == STAMP


@given(data=st.data())
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_damage_goes_unnoticed(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "transcript_index.faiss"
    write(path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="cut off"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert flaw_of(path) in (Flaw.TRUNCATED, Flaw.CHECKSUM)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize(
    ("call", "fail_at"), [("write", 0), ("write", 1), ("sync", 0), ("replace", 0)]
)
def test_a_failed_write_leaves_the_old_checkpoint(
    path: Path, call: str, fail_at: int, error: int
) -> None:
    write(path)
    before = path.read_bytes()
    disk = FaultyDisk(call, error, fail_at)
    with pytest.raises(OSError, match=r".") as raised:
        write(path, replace(STAMP, commit_id=18), disk)
    assert raised.value.errno == error
    assert disk.calls[call] > fail_at
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_sync_of_the_folder_is_an_error(path: Path) -> None:
    with pytest.raises(OSError, match="Input/output"):
        write(path, disk=FaultyDisk("sync_folder"))
    assert isinstance(checkpoint.load(path, STAMP, DISK), Checkpoint)


def test_file_and_folder_are_synced_in_order(path: Path) -> None:
    disk = FaultyDisk()
    write(path, disk=disk)
    assert list(disk.calls) == ["write", "sync", "replace", "sync_folder"]
    assert disk.calls["sync"] == 2  # the file, and the folder through sync_folder


def test_short_writes_and_reads_are_continued(path: Path) -> None:
    write(path, disk=FaultyDisk(short=1000))
    assert faiss.read_index(str(path)).ntotal == ROWS
    loaded = checkpoint.load(path, STAMP, FaultyDisk(short=100))
    assert isinstance(loaded, Checkpoint)
    assert np.array_equal(loaded.vectors, VECTORS)


def test_a_write_that_takes_nothing_is_an_error(path: Path) -> None:
    with pytest.raises(OSError, match="wrote 0 of"):
        write(path, disk=FaultyDisk(short=0))
    assert not path.exists()


def test_reads_that_fail_anywhere_are_a_reason_not_an_error(path: Path) -> None:
    write(path)
    counting = FaultyDisk()
    checkpoint.load(path, STAMP, counting)
    assert counting.calls["read"] > 3
    for fail_at in range(counting.calls["read"]):
        disk = FaultyDisk("read", fail_at=fail_at)
        assert flaw_of(path, disk=disk) in (Flaw.UNREADABLE, Flaw.CONTENT)


def test_left_over_temporary_files_are_removed(path: Path) -> None:
    write(path)
    left_over = path.with_name(path.name + ".writing")
    left_over.write_bytes(b"half")
    remove_temporary_files(path.parent)
    assert not left_over.exists()
    assert path.exists()
