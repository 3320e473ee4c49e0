"""Opening a folder again: after a clean end, a kill, damage, or with files of something else."""

import json
import logging
import os
import pickle
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from faulty_disk import FaultyDisk
from storage_samples import (
    CLIP,
    DIMENSION,
    FRAME,
    MODEL,
    TRANSCRIPT,
    find,
    random_units,
    segment,
    store_segments,
    stored,
)

from deployments.core.errors import (
    FolderLocked,
    LegacyFolder,
    ServiceError,
    StoreDamaged,
    StoreMismatch,
    StoreUnwritable,
)
from deployments.core.index import folder_check
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, ModelIdentity
from deployments.core.storage.folder_lock import FolderLock
from deployments.core.vectors import checkpoint
from deployments.core.vectors.checkpoint import path_of

Open = Callable[[], SegmentIndex]
FILES = {
    ".lock",
    "store.sqlite3",
    "store.last_commit",
    "transcript_index.faiss",
    "frame_index.faiss",
    "clip_index.faiss",
}


def fill(index: SegmentIndex) -> None:
    store_segments(index, 1, *(segment(i) for i in range(30)))
    store_segments(index, 2, *(segment(i, f"frame {i}") for i in range(10)), kind=FRAME)
    store_segments(index, 1, *(segment(i) for i in range(5, 25)), replace=True)


def state_of(index: SegmentIndex) -> object:
    """Every hit of every type with its score, and the statistics."""
    hits = [find(index, "some query", kind=kind) for kind in EmbeddingType]
    assert index.verify() == []
    return hits, index.stats().vectors, index.stats().last_sequence


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@contextmanager
def killed(folder: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder as a killed process leaves it: a copy of all files while the index is open."""
    copy = tmp_path / "killed"
    shutil.copytree(folder, copy)
    yield copy


def test_a_clean_end_leaves_the_files_of_the_contract(open_index: Open, folder: Path) -> None:
    index = open_index()
    fill(index)
    before = state_of(index)
    index.close()
    assert names(folder) == FILES
    assert faiss.read_index(str(folder / "transcript_index.faiss")).ntotal == 20
    assert faiss.read_index(str(folder / "clip_index.faiss")).ntotal == 0
    again = open_index()
    assert state_of(again) == before
    assert again.stats().rebuilt == {}


def test_an_unchanged_index_writes_no_checkpoint(open_index: Open, folder: Path) -> None:
    index = open_index()
    fill(index)
    index.close()
    times = {kind: path_of(folder, kind).stat().st_mtime_ns for kind in EmbeddingType}
    index = open_index()
    store_segments(index, 9, segment("x"), kind=CLIP)
    index.close()
    after = {kind: path_of(folder, kind).stat().st_mtime_ns for kind in EmbeddingType}
    assert {kind for kind in EmbeddingType if times[kind] != after[kind]} == {CLIP}


def test_what_came_after_the_checkpoint_is_replayed(
    open_index: Open, folder: Path, tmp_path: Path
) -> None:
    index = open_index()
    fill(index)
    index.checkpoint()
    store_segments(index, 1, segment(5, "changed"), segment(6, x=1))
    store_segments(index, 3, segment("new"))
    index.delete_media(2)
    before = state_of(index)
    with killed(folder, tmp_path) as copy, SegmentIndex.open(copy, MODEL) as again:
        assert state_of(again) == before
        assert again.stats().rebuilt == {}
        assert sum(again._checkpoints.schedule.pending().values()) == 3 + 2 + 10


@pytest.mark.parametrize("kind", [TRANSCRIPT, FRAME])
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "foreign", "empty", "folder"])
def test_a_bad_checkpoint_is_rebuilt(
    open_index: Open,
    folder: Path,
    damage: str,
    kind: EmbeddingType,
    caplog: pytest.LogCaptureFixture,
) -> None:
    index = open_index()
    fill(index)
    before = state_of(index)
    index.close()
    path = path_of(folder, kind)
    content = path.read_bytes()
    path.unlink()
    match damage:
        case "cut":
            path.write_bytes(content[:-9])
        case "flipped":
            path.write_bytes(content[:300] + bytes([content[300] ^ 1]) + content[301:])
        case "foreign":
            flat = faiss.IndexFlatL2(DIMENSION)
            flat.add(random_units(20))
            faiss.write_index(flat, str(path))
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
    again = open_index()
    assert state_of(again) == before
    assert set(again.stats().rebuilt) == {kind}
    assert path.name in again.stats().rebuilt[kind]
    (record,) = caplog.records
    assert (record.levelno, path.name in record.message) == (logging.WARNING, True)
    if damage == "folder":
        path.rmdir()
    again.close()
    assert open_index().stats().rebuilt == {}
    assert len(caplog.records) == 1


def test_a_checkpoint_of_another_store_is_not_used(
    open_index: Open, folder: Path, tmp_path: Path
) -> None:
    index = open_index()
    fill(index)
    before = state_of(index)
    index.close()
    other = tmp_path / "other"
    with SegmentIndex.open(other, MODEL) as foreign:
        store_segments(foreign, 1, *(segment(i, f"other {i}") for i in range(20)))
    shutil.copy(path_of(other, TRANSCRIPT), folder)
    again = open_index()
    assert state_of(again) == before
    assert again.stats().rebuilt == {TRANSCRIPT: "transcript_index.faiss belongs to another store"}


def test_a_checkpoint_that_lacks_rows_is_rebuilt(open_index: Open, folder: Path) -> None:
    index = open_index()
    store_segments(index, 1, *(segment(i) for i in range(5)))
    before = state_of(index)
    whole = index._collections[TRANSCRIPT].snapshot
    index._collections[TRANSCRIPT].change(
        np.array([2]), np.empty(0, np.int64), np.empty((0, DIMENSION), np.float32)
    )
    index._publish(1, 5)
    index.close()
    again = open_index()
    assert again.stats().rebuilt == {
        TRANSCRIPT: "transcript_index.faiss lacks rows that it should have"
    }
    assert state_of(again) == before
    assert (
        again._collections[TRANSCRIPT].snapshot.live_sequences().tolist()
        == whole.sequences.tolist()
    )


def refused(folder: Path, error: type[ServiceError], model: ModelIdentity = MODEL) -> str:
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".lock"}
    with pytest.raises(error) as raised:
        SegmentIndex.open(folder, model)
    assert type(raised.value) is error
    after = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".lock"}
    assert after == before
    with FolderLock(folder):
        return raised.value.detail


@pytest.fixture
def closed_folder(open_index: Open, folder: Path) -> Path:
    index = open_index()
    fill(index)
    index.close()
    return folder


def test_a_lost_store_is_damage_not_an_empty_index(closed_folder: Path) -> None:
    (closed_folder / "store.sqlite3").unlink()
    message = refused(closed_folder, StoreDamaged)
    assert "transcript_index.faiss" in message
    assert "no store.sqlite3" in message
    assert "backup" in message
    (closed_folder / "store.sqlite3").touch()
    refused(closed_folder, StoreDamaged)


def test_starting_over_by_deleting_everything_visible(closed_folder: Path) -> None:
    for file in closed_folder.glob("*"):
        if not file.name.startswith("."):
            file.unlink()
    with SegmentIndex.open(closed_folder, MODEL) as index:
        assert stored(index) == {}


def test_another_model_is_refused(closed_folder: Path) -> None:
    other = ModelIdentity("other-model", "0f" * 32, DIMENSION)
    message = refused(closed_folder, StoreMismatch, other)
    assert "sample-model" in message
    assert "other-model" in message


def write_legacy(folder: Path, index: bool = True, metadata: bool = True) -> None:
    folder.mkdir()
    flat = faiss.IndexFlatL2(DIMENSION)
    flat.add(random_units(3))
    if index:
        faiss.write_index(flat, str(folder / "transcript_index.faiss"))
    if metadata:
        rows = [{"media_item_id": 1, "segment_id": i} for i in range(3)]
        (folder / "transcript_metadata.pkl").write_bytes(pickle.dumps(rows))


@pytest.mark.parametrize(("index", "metadata"), [(True, True), (True, False), (False, True)])
def test_files_of_the_old_service_are_left_for_the_import(
    folder: Path, index: bool, metadata: bool
) -> None:
    write_legacy(folder, index, metadata)
    message = refused(folder, LegacyFolder)
    assert "embeddings-service import-legacy" in message
    assert ("transcript_index.faiss" in message, "transcript_metadata.pkl" in message) == (
        index,
        metadata,
    )


def test_old_files_beside_a_store_do_no_harm(closed_folder: Path) -> None:
    (closed_folder / "transcript_metadata.pkl").write_bytes(b"old")
    with SegmentIndex.open(closed_folder, MODEL) as index:
        assert index.stats().vectors == {TRANSCRIPT: 20, FRAME: 10, CLIP: 0}


def test_a_locked_folder(index: SegmentIndex, folder: Path) -> None:
    with pytest.raises(FolderLocked, match=f"process {os.getpid()}"):
        SegmentIndex.open(folder, MODEL)
    store_segments(index, 1, segment("a"))


def test_a_lock_that_was_taken_before_is_used_and_released(folder: Path) -> None:
    lock = FolderLock(folder)
    assert lock.try_acquire()
    index = SegmentIndex.open(folder, MODEL, lock)
    assert not FolderLock(folder).try_acquire()
    index.close()
    assert not lock.held
    SegmentIndex.open(folder, MODEL).close()


def test_a_store_that_went_back_in_time_is_noticed(open_index: Open, folder: Path) -> None:
    index = open_index()
    store_segments(index, 1, segment("a"))
    index.close()
    backup = (folder / "store.sqlite3").read_bytes()
    index = open_index()
    store_segments(index, 1, segment("b"))
    index.close()
    (folder / "store.sqlite3").write_bytes(backup)
    message = refused(folder, StoreDamaged)
    assert "older copy" in message
    assert "store.last_commit and the *_index.faiss files" in message
    # The checkpoint alone tells as well.
    (folder / "store.last_commit").unlink()
    message = refused(folder, StoreDamaged)
    assert re.search("holds commit 2 .* the store only commit 1 ", message)
    # What the messages say to do when the older state is wanted.
    for kind in EmbeddingType:
        path_of(folder, kind).unlink()
    with SegmentIndex.open(folder, MODEL) as again:
        assert set(stored(again)) == {(1, "a")}


def test_a_restored_backup_of_the_whole_folder_is_fine(
    open_index: Open, folder: Path, tmp_path: Path
) -> None:
    index = open_index()
    store_segments(index, 1, segment("a"))
    index.close()
    shutil.copytree(folder, tmp_path / "backup")
    index = open_index()
    store_segments(index, 1, segment("b"))
    index.close()
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "backup", folder)
    index = open_index()
    assert set(stored(index)) == {(1, "a")}
    store_segments(index, 1, segment("c"))
    assert set(stored(index)) == {(1, "a"), (1, "c")}


def test_a_lost_write_ahead_log_is_noticed(
    index: SegmentIndex, folder: Path, tmp_path: Path
) -> None:
    store_segments(index, 1, segment("a"))
    with killed(folder, tmp_path) as copy:
        (copy / "store.sqlite3-wal").unlink()
        (copy / "store.sqlite3-shm").unlink()
        with pytest.raises(StoreDamaged, match="-wal file was removed"):
            SegmentIndex.open(copy, MODEL)


def test_a_log_whose_store_is_gone_is_not_thrown_away(
    index: SegmentIndex, folder: Path, tmp_path: Path
) -> None:
    store_segments(index, 1, segment("a"))
    with killed(folder, tmp_path) as copy:
        (copy / "store.sqlite3").rename(tmp_path / "elsewhere")
        with pytest.raises(StoreDamaged, match=r"store.sqlite3-wal.* but no store.sqlite3"):
            SegmentIndex.open(copy, MODEL)
        (tmp_path / "elsewhere").rename(copy / "store.sqlite3")
        with SegmentIndex.open(copy, MODEL) as again:
            assert set(stored(again)) == {(1, "a")}


def test_a_killed_process_leaves_everything_that_was_acknowledged(
    index: SegmentIndex, folder: Path, tmp_path: Path
) -> None:
    fill(index)
    before = state_of(index)
    with killed(folder, tmp_path) as copy, SegmentIndex.open(copy, MODEL) as again:
        assert state_of(again) == before
        assert set(again.stats().rebuilt) == {TRANSCRIPT, FRAME}


WRITE_UNTIL_KILLED = """
import itertools, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from storage_samples import MODEL, segment, store_segments
from deployments.core.index.segment_index import SegmentIndex

index = SegmentIndex.open(Path(sys.argv[1]), MODEL)
for version in itertools.count(int(sys.argv[3])):
    # The media item's segments all have one version, and each version other segments.
    store_segments(index, "m", *(segment(f"{version}-{i}", f"{i}", v=version) for i in range(20)),
                   replace=True)
    if version % 5 == 0:
        index.checkpoint()
    print(version, flush=True)
"""


def test_kills_at_any_moment_lose_nothing_and_leave_nothing_half(folder: Path) -> None:
    acknowledged = 0
    for pause in (1, 12, 33):
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", WRITE_UNTIL_KILLED),
                *(str(folder), str(Path(__file__).parent), str(acknowledged + 1)),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        with process:
            assert process.stdout is not None
            for _ in range(pause):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split("\n")
        acknowledged = max([acknowledged + pause, *(int(line) for line in rest[:-1])])
        with SegmentIndex.open(folder, MODEL) as index:
            versions = {each.metadata["v"] for each in stored(index).values()}
            # One write may have become durable just before its acknowledgement was cut off.
            assert versions in ({acknowledged}, {acknowledged + 1})
            assert len(stored(index)) == 20
            assert index.verify() == []
            (acknowledged,) = versions


def test_a_checkpoint_that_cannot_be_written(
    open_index: Open, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FaultyDisk()
    with SegmentIndex.open(folder, MODEL, disk=disk) as index:
        fill(index)
        disk.call = "write"
        with pytest.raises(StoreUnwritable, match=r"Cannot write .*transcript_index\.faiss"):
            index.checkpoint()
        store_segments(index, 5, segment("more"))
        before = state_of(index)
        disk.call = ""
        index.checkpoint()
        store_segments(index, 6, segment("last"))
        disk.call = "sync"
    assert "No checkpoint at the end" in caplog.text
    again = open_index()
    assert set(stored(again)) >= {(5, "more"), (6, "last")}
    again.delete_media(6)
    assert state_of(again)[:2] == before[:2]  # type: ignore[index]
    assert again.stats().rebuilt == {}


def test_unreadable_checkpoints_are_rebuilt(closed_folder: Path) -> None:
    with SegmentIndex.open(closed_folder, MODEL, disk=FaultyDisk("read")) as index:
        assert set(index.stats().rebuilt) == set(EmbeddingType)
        assert index.stats().vectors == {TRANSCRIPT: 20, FRAME: 10, CLIP: 0}


def test_left_over_temporary_files_are_removed(closed_folder: Path) -> None:
    (closed_folder / "clip_index.faiss.writing").write_bytes(b"half")
    SegmentIndex.open(closed_folder, MODEL).close()
    assert names(closed_folder) == FILES


def test_a_vector_that_is_damaged_in_the_store_stops_the_rebuild(closed_folder: Path) -> None:
    with closing(sqlite3.connect(closed_folder / "store.sqlite3")) as connection:
        connection.execute("UPDATE vectors SET vector=zeroblob(64) WHERE seq=7")
        connection.commit()
    with SegmentIndex.open(closed_folder, MODEL) as index:  # the checkpoint still has it
        (problem,) = index.verify()
        assert "Row 7 " in problem
    path_of(closed_folder, TRANSCRIPT).unlink()
    with pytest.raises(StoreDamaged, match=r"Row 7 \(transcript.* is not what was written"):
        SegmentIndex.open(closed_folder, MODEL)
    with closing(sqlite3.connect(closed_folder / "store.sqlite3")) as connection:
        connection.execute("DELETE FROM vectors WHERE seq=7")
        connection.commit()
    with pytest.raises(StoreDamaged, match="Row 7 or its vector is not in the store"):
        SegmentIndex.open(closed_folder, MODEL)


def test_checkpoints_become_due(index: SegmentIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(index._checkpoints.schedule, "_clock", lambda: now[0])
    assert index._checkpoints.schedule.pending() == {TRANSCRIPT: 0, FRAME: 0, CLIP: 0}
    index.checkpoint()
    now[0] += 100
    assert not index.checkpoint_due()
    store_segments(index, 1, segment("a"))
    assert not index.checkpoint_due()
    now[0] += 29.9
    assert not index.checkpoint_due()
    now[0] += 0.1
    assert index.checkpoint_due()
    index.checkpoint()
    assert not index.checkpoint_due()
    index._checkpoints.schedule.changed(TRANSCRIPT, 4999)
    assert not index.checkpoint_due()
    index._checkpoints.schedule.changed(TRANSCRIPT, 1)
    assert index.checkpoint_due()
    assert not index._checkpoints.schedule.due({TRANSCRIPT: 25_001})
    assert index._checkpoints.schedule.due({TRANSCRIPT: 25_000})


def test_rows_that_change_while_a_checkpoint_is_written_stay_pending(
    index: SegmentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_segments(index, 1, segment("a"), segment("b"))
    write = checkpoint.write

    def write_slowly(*arguments: Any) -> None:
        store_segments(index, 2, segment("c"))
        write(*arguments)

    monkeypatch.setattr(checkpoint, "write", write_slowly)
    index.checkpoint()
    monkeypatch.undo()
    assert index._checkpoints.schedule.pending()[TRANSCRIPT] > 0
    index.checkpoint()
    assert index._checkpoints.schedule.pending() == {}


def test_the_commit_mark_of_another_store_says_nothing(folder: Path) -> None:
    other = {"store_id": "another", "commit_id": 1000}
    with SegmentIndex.open(folder, MODEL) as index:
        store_segments(index, 1, segment("a"))
    (folder / "store.last_commit").write_text(json.dumps(other))
    with SegmentIndex.open(folder, MODEL) as index:
        assert set(stored(index)) == {(1, "a")}


def test_the_commit_mark_survives_nonsense(open_index: Open, folder: Path) -> None:
    for nonsense in (b"", b"{", b"[]", b"null", b'{"store_id": 1}', b"\xff" * 200):
        folder.mkdir(exist_ok=True)
        (folder / "store.last_commit").write_bytes(nonsense)
        index = open_index()
        store_segments(index, 1, segment(repr(nonsense)))
        index.close()
        record = json.loads((folder / "store.last_commit").read_bytes()[:128])
        assert record["store_id"] == index._store.store_id
        assert record["commit_id"] == index._published.current.commit_id


def test_network_file_systems_are_warned_about(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    SegmentIndex.open(folder, MODEL).close()
    assert caplog.records == []
    mounts = f"server:/x {folder.parent} nfs4 rw 0 0\n/dev/sda / ext4 rw 0 0\n"
    real = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self: mounts if str(self) == "/proc/mounts" else real(self)
    )
    assert folder_check.network_file_system(folder) == "nfs4"
    assert folder_check.network_file_system(folder.parent.parent) is None
    SegmentIndex.open(folder, MODEL).close()
    assert "network file system (nfs4)" in caplog.text
