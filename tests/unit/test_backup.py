import hashlib
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from storage_samples import CLIP, FRAME, MODEL, TRANSCRIPT, find, segment, store_segments, stored

from deployments.core import folder_install, folder_view, schema_sql
from deployments.core import restore as restore_module
from deployments.core.backup import back_up
from deployments.core.errors import (
    FolderLocked,
    InvalidInput,
    LegacyFolder,
    NotReady,
    ServiceError,
    StoreDamaged,
    StoreError,
    StoreMismatch,
)
from deployments.core.folder_lock import FolderLock
from deployments.core.folder_verify import verify_folder
from deployments.core.folder_view import read_folder
from deployments.core.restore import restore
from deployments.core.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType

HERE = Path(__file__).parent
INDEX_FILES = sorted([*(f"{kind}_index.faiss" for kind in EmbeddingType), "store.sqlite3"])


def fill(index: SegmentIndex) -> None:
    store_segments(index, 1, segment(1, "RSI", speaker="A"), segment("b", "MACD"))
    store_segments(index, "two", segment(1, "a chart"), kind=FRAME)
    index.apply([])
    index.checkpoint(force=True)
    store_segments(index, 2, segment(3, "after the checkpoint"))


FILLED = {
    (1, 1): ("RSI", {"speaker": "A"}),
    (1, "b"): ("MACD", {}),
    (2, 3): ("after the checkpoint", {}),
}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backups" / "monday"


@pytest.fixture
def filled(open_index: Callable[[], SegmentIndex]) -> SegmentIndex:
    """An open index with three transcript segments and a frame."""
    index = open_index()
    fill(index)
    return index


@pytest.fixture
def closed(filled: SegmentIndex) -> Path:
    """The folder of that index, closed."""
    filled.close()
    return filled.folder


def transcripts(folder: Path) -> dict[Any, Any]:
    with SegmentIndex.open(folder, MODEL) as index:
        assert index.verify() == []
        assert index.stats().rebuilt == {}
        return {key: (each.text, each.metadata) for key, each in stored(index).items()}


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of each file, apart from what SQLite's readers share in memory."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm")
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Backup


def test_a_backup_is_an_index_folder_with_the_same_content(closed: Path, target: Path) -> None:
    before = snapshot(closed)
    copied = back_up(closed, target)
    assert snapshot(closed) == before
    assert copied.model == MODEL
    assert copied.segments == {TRANSCRIPT: 3, FRAME: 1, CLIP: 0}
    assert copied.left_out == []
    assert names(target) == INDEX_FILES
    assert copied.store_bytes == (target / "store.sqlite3").stat().st_size
    assert names(target.parent) == ["monday"]
    assert verify_folder(target).problems == []
    assert transcripts(target) == FILLED
    with SegmentIndex.open(target, MODEL) as index, SegmentIndex.open(closed, MODEL) as original:
        assert find(index, "RSI") == find(original, "RSI")
        assert find(index, "RSI")[0].cosine == 1.0
        assert find(index, "x", kind=FRAME) == find(original, "x", kind=FRAME)


def test_a_backup_beside_an_open_index_has_what_only_the_log_has(
    filled: SegmentIndex, target: Path
) -> None:
    assert (filled.folder / "store.sqlite3-wal").stat().st_size > 0
    copied = back_up(filled.folder, target)
    assert copied.commit_id == 3
    store_segments(filled, 5, segment(1, "later"))
    assert transcripts(target) == FILLED
    assert (5, 1) in stored(filled)


def test_checkpoints_of_an_older_commit_go_along(filled: SegmentIndex, target: Path) -> None:
    checkpoint = (filled.folder / "transcript_index.faiss").read_bytes()
    assert back_up(filled.folder, target).left_out == []
    assert (target / "transcript_index.faiss").read_bytes() == checkpoint
    assert transcripts(target) == FILLED  # with the row that the checkpoint lacks


def test_a_checkpoint_that_does_not_fit_is_left_out(
    closed: Path, tmp_path: Path, target: Path
) -> None:
    with SegmentIndex.open(tmp_path / "other", MODEL) as other:
        fill(other)
    shutil.copy(tmp_path / "other" / "transcript_index.faiss", closed)
    (closed / "frame_index.faiss").write_bytes(b"torn")
    (first, second) = back_up(closed, target).left_out
    assert "transcript_index.faiss belongs to another store" in first
    assert "frame_index.faiss is cut off" in second
    assert names(target) == ["clip_index.faiss", "store.sqlite3"]
    with SegmentIndex.open(target, MODEL) as index:
        assert {key: (s.text, s.metadata) for key, s in stored(index).items()} == FILLED


def test_an_empty_target_folder_is_used(closed: Path, target: Path) -> None:
    target.mkdir(parents=True)
    back_up(closed, target)
    assert transcripts(target) == FILLED


def test_a_target_with_content_is_refused(closed: Path, target: Path) -> None:
    target.mkdir(parents=True)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="isn't an empty folder"):
        back_up(closed, target)
    with pytest.raises(InvalidInput, match="isn't an empty folder"):
        back_up(closed, target / "notes.txt")
    assert names(target) == ["notes.txt"]
    assert names(target.parent) == ["monday"]


def test_a_mount_point_is_refused(
    closed: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.mkdir(parents=True)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == target)
    with pytest.raises(InvalidInput, match="mount point"):
        back_up(closed, target)


def test_a_damaged_store_is_not_backed_up(closed: Path, target: Path) -> None:
    change_a_text(closed)
    with pytest.raises(StoreDamaged, match=r"Row 1 .* its checksum differs"):
        back_up(closed, target)
    assert not target.exists()
    assert names(target.parent) == []


@pytest.mark.parametrize("source", ["nowhere", "empty"])
def test_a_folder_without_a_store_is_refused(tmp_path: Path, target: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match=r"has no store\.sqlite3"):
        back_up(tmp_path / source, target)
    assert names(tmp_path) == ["empty"]


def test_what_a_killed_backup_left_is_replaced(closed: Path, target: Path) -> None:
    partial = target.parent / ".monday.partial"
    partial.mkdir(parents=True)
    (partial / "store.sqlite3").write_bytes(b"half")
    (partial / "store.sqlite3-journal").write_bytes(b"half")
    back_up(closed, target)
    assert names(target.parent) == ["monday"]
    assert transcripts(target) == FILLED


def test_two_backups_to_one_target_are_refused(closed: Path, target: Path) -> None:
    with (
        FolderLock(target.parent / ".monday.partial"),
        pytest.raises(FolderLocked, match=f"made by process {os.getpid()}"),
    ):
        back_up(closed, target)


WRITER = """
import itertools, sys
sys.path.insert(0, sys.argv[1])
from storage_samples import MODEL, segment, store_segments
from deployments.core.segment_index import SegmentIndex
with SegmentIndex.open(sys.argv[2], MODEL) as index:
    for number in itertools.count():
        store_segments(index, number, segment(1, f"text {number}"), segment(2, "x" * 2000))
        if number % 7 == 0:
            store_segments(index, number // 2, segment(1, f"changed by {number}"))
        if number % 50 == 0:
            index.checkpoint()
        print(number, flush=True)
"""


@contextmanager
def writing_process(folder: Path) -> Iterator[Callable[[], int]]:
    """Another process that writes without pause; gives what it acknowledged last."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(HERE), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    output = process.stdout
    assert output is not None
    try:
        # Waits for the next acknowledgement: those in the pipe are older.
        os.set_blocking(output.fileno(), True)
        yield lambda: int(output.readline())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        output.close()


def test_backups_beside_a_writing_process_have_what_was_acknowledged(
    folder: Path, tmp_path: Path
) -> None:
    with writing_process(folder) as acknowledged:
        for _ in range(60):
            acknowledged()
        for number in range(4):
            last = acknowledged()
            target = tmp_path / f"backup-{number}"
            assert back_up(folder, target).left_out == []
            assert verify_folder(target).problems == []
            assert verify_folder(folder).store_problems == []
            with SegmentIndex.open(target, MODEL) as index:
                assert index.verify() == []
                assert index.stats().rebuilt == {}
                found = {key: each.text for key, each in stored(index).items()}
            texts = {key: text for key, text in found.items() if not text.startswith("changed")}
            assert all(found[media, 2] == "x" * 2000 for media in range(last + 1))
            assert all((media, 1) in found for media in range(last + 1))
            assert all(
                text == f"text {media}" for (media, name), text in texts.items() if name == 1
            )
            # Of one moment: whole writes only, without gaps.
            assert sorted({media for media, _ in found}) == list(range(len(found) // 2))
    # The writer was killed: its log is there, and the folder opens as it is.
    verdict = verify_folder(folder)
    assert verdict.problems == []
    with SegmentIndex.open(folder, MODEL) as index:
        assert index.verify() == []


# Restore


def test_a_restored_folder_has_the_backup(closed: Path, target: Path, tmp_path: Path) -> None:
    back_up(closed, target)
    new = tmp_path / "new" / "index"
    restored = restore(target, new)
    assert restored.kept is None
    assert restored.copied.segments == {TRANSCRIPT: 3, FRAME: 1, CLIP: 0}
    assert names(new) == [".lock", *INDEX_FILES]
    assert names(new.parent) == ["index"]
    assert transcripts(new) == FILLED


def test_an_older_backup_opens_in_the_folder_that_went_on(
    filled: SegmentIndex, target: Path
) -> None:
    back_up(filled.folder, target)
    store_segments(filled, 9, segment(9, "newer"))
    filled.close()
    newer = snapshot(filled.folder)
    restored = restore(target, filled.folder, force=True)
    assert restored.kept is not None
    assert restored.kept.parent == filled.folder.parent
    assert restored.kept.name.startswith("index.replaced-2")
    assert {name: newer[name] for name in newer if name != ".lock"} == snapshot(restored.kept)
    assert transcripts(filled.folder) == FILLED
    # It can be written to, and opened again: nothing takes it for an older copy.
    with SegmentIndex.open(filled.folder, MODEL) as index:
        store_segments(index, 10, segment(1, "a new line of history"))
    assert transcripts(filled.folder) == {**FILLED, (10, 1): ("a new line of history", {})}
    # And what was replaced is an index still.
    assert transcripts(restored.kept) == {**FILLED, (9, 9): ("newer", {})}


def test_restoring_twice_in_a_second_keeps_both(closed: Path, target: Path) -> None:
    back_up(closed, target)
    places = [restore(target, closed, force=True).kept for _ in range(3)]
    assert len(set(places)) == 3
    assert all(place is not None and transcripts(place) == FILLED for place in places)


def test_a_folder_with_content_is_only_replaced_by_force(closed: Path, target: Path) -> None:
    back_up(closed, target)
    (closed / "notes.txt").write_text("mine")
    before = snapshot(closed)
    with pytest.raises(InvalidInput, match=r"isn't empty \(.*notes\.txt.*--force"):
        restore(target, closed)
    after = snapshot(closed)
    assert {name: after[name] for name in after if name != ".lock"} == {
        name: before[name] for name in before if name != ".lock"
    }
    kept = restore(target, closed, force=True).kept
    assert (closed / "notes.txt").read_text() == "mine"
    assert kept is not None
    assert "notes.txt" not in names(kept)


def test_a_folder_in_use_is_not_restored(filled: SegmentIndex, target: Path) -> None:
    back_up(filled.folder, target)
    with pytest.raises(FolderLocked, match="is in use by process"):
        restore(target, filled.folder, force=True)
    assert find(filled, "RSI")[0].segment.text == "RSI"


def test_a_damaged_backup_is_not_restored(closed: Path, target: Path) -> None:
    back_up(closed, target)
    change_a_text(target)
    before = snapshot(closed)
    with pytest.raises(StoreDamaged, match=r"Row 1 .* its checksum differs"):
        restore(target, closed, force=True)
    assert snapshot(closed) == before


def test_a_damaged_checkpoint_does_not_keep_from_restoring(closed: Path, target: Path) -> None:
    back_up(closed, target)
    flip(target / "transcript_index.faiss", 200)
    restored = restore(target, closed, force=True)
    (reason,) = restored.copied.left_out
    assert "transcript_index.faiss is damaged" in reason
    with SegmentIndex.open(closed, MODEL) as index:
        assert {key: (s.text, s.metadata) for key, s in stored(index).items()} == FILLED


def test_a_folder_is_not_restored_from_itself(closed: Path) -> None:
    with pytest.raises(InvalidInput, match="is the folder to restore to"):
        restore(closed, closed, force=True)
    with pytest.raises(StoreError, match=r"has no store\.sqlite3"):
        restore(closed / "nowhere", closed, force=True)


def test_a_damaged_folder_can_be_replaced(closed: Path, target: Path) -> None:
    back_up(closed, target)
    damaged = b"not a database" * 1000
    (closed / "store.sqlite3").write_bytes(damaged)
    kept = restore(target, closed, force=True).kept
    assert kept is not None
    assert (kept / "store.sqlite3").read_bytes() == damaged
    assert transcripts(closed) == FILLED


def test_files_of_the_old_service_are_moved_aside(closed: Path, target: Path) -> None:
    back_up(closed, target)
    for name in names(closed):
        (closed / name).unlink()
    (closed / "transcript_index.faiss").write_bytes(b"old index")
    (closed / "transcript_metadata.pkl").write_bytes(b"old metadata")
    kept = restore(target, closed, force=True).kept
    assert kept is not None
    assert names(kept) == ["transcript_index.faiss", "transcript_metadata.pkl"]
    assert (kept / "transcript_metadata.pkl").read_bytes() == b"old metadata"
    assert names(closed) == [".lock", *INDEX_FILES]
    assert transcripts(closed) == FILLED


def test_what_a_killed_service_left_in_its_log_is_kept(folder: Path, target: Path) -> None:
    with writing_process(folder) as acknowledged:
        for _ in range(5):
            acknowledged()
        back_up(folder, target)
        for _ in range(20):
            last = acknowledged()
    assert (folder / "store.sqlite3-wal").stat().st_size > 0
    kept = restore(target, folder, force=True).kept
    assert kept is not None
    with SegmentIndex.open(kept, MODEL) as index:
        assert all((media, 2) in stored(index) for media in range(last + 1))
    with SegmentIndex.open(folder, MODEL) as index:
        assert index.verify() == []
        assert 5 * 2 <= len(stored(index)) < 2 * last


def test_a_mount_point_keeps_its_old_index_within(
    closed: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(closed, target)
    monkeypatch.setattr(restore_module, "_can_link_beside", lambda folder: False)
    kept = restore(target, closed, force=True).kept
    assert kept is not None
    assert kept.parent == closed
    assert kept.name.startswith("replaced-2")
    assert transcripts(kept) == FILLED
    assert transcripts(closed) == FILLED


def test_files_are_copied_where_they_can_not_have_a_second_name(
    closed: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, other: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    back_up(closed, target)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    kept = restore(target, closed, force=True).kept
    assert kept is not None
    assert kept.parent == closed
    assert transcripts(kept) == FILLED
    assert transcripts(closed) == FILLED


def run_kill_points(template: Path, work: Path, *command: str) -> list[dict[str, Any]]:
    """What was found after each kill; see kill_points.py."""
    work.mkdir()
    done = subprocess.run(
        [sys.executable, str(HERE / "kill_points.py"), str(template), str(work), *command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_restore_killed_anywhere_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    template = tmp_path / "template"
    with SegmentIndex.open(template / "index", MODEL) as index:
        store_segments(index, 1, segment(1, "old"))
        index.checkpoint(force=True)
        back_up(template / "index", template / "backup")
        store_segments(index, 2, segment(1, "new"))
        index.checkpoint(force=True)
        store_segments(index, 3, segment(1, "in the log"))
        # As a killed service leaves it.
        shutil.copytree(template / "index", template / "killed")
    shutil.rmtree(template / "index")
    (template / "killed").rename(template / "index")
    old = ["transcript 1 1 old"]
    new = sorted([*old, "transcript 2 1 new", "transcript 3 1 in the log"])

    found = run_kill_points(
        template, tmp_path / "work", "restore", "{}/backup", "--index-dir", "{}/index", "--force"
    )
    assert len(found) > 20
    survived = [each["survived"] for each in found]
    assert all(each in (new, old) for each in survived), survived
    # Replaced at one moment, and not restored to before again.
    assert [each for each, _ in itertools.groupby(survived)] == [new, old]
    assert all(each["repeated_status"] == 0 and each["repeated"] == old for each in found)
    for each in found:
        kept = [name for name in each["repeated_files"] if "replaced-" in name]
        assert any(name.endswith("/store.sqlite3") for name in kept), each


# Verify


def change_a_text(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "store.sqlite3")) as connection, connection:
        connection.execute("UPDATE segments SET text='forged' WHERE seq=1")


def execute(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "store.sqlite3")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_whole_folder_has_no_problems_and_is_left_as_it_is(closed: Path) -> None:
    before = snapshot(closed)
    verdict = verify_folder(closed)
    assert verdict.problems == []
    assert verdict.notes == []
    assert verdict.segments == {TRANSCRIPT: 3, FRAME: 1, CLIP: 0}
    assert verdict.model == MODEL
    assert snapshot(closed) == before
    assert not (closed / "store.sqlite3-shm").exists()


def test_an_index_in_use_has_no_problems(filled: SegmentIndex) -> None:
    before = snapshot(filled.folder)
    verdict = verify_folder(filled.folder)
    assert verdict.problems == []
    assert verdict.commit_id == 3
    assert snapshot(filled.folder) == before
    store_segments(filled, 7, segment(1, "goes on"))


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        (["UPDATE segments SET text='x' WHERE seq=2"], r"Row 2 .* its checksum differs"),
        (["UPDATE segments SET truncated=1 WHERE seq=2"], r"Row 2 .* its checksum differs"),
        (["UPDATE vectors SET vector=zeroblob(64) WHERE seq=2"], r"Row 2 .* its checksum differs"),
        (["DELETE FROM vectors WHERE seq=2"], "Row 2 has no vector"),
        (["INSERT INTO vectors VALUES (99, zeroblob(64))"], "Vector 99 has no segment"),
        (
            ["PRAGMA writable_schema=1", "DELETE FROM sqlite_master WHERE name='segments_by_text'"],
            "SQLite: .*never used",
        ),
    ],
)
def test_a_damaged_store_is_reported(closed: Path, statements: list[str], problem: str) -> None:
    execute(closed, *statements)
    before = snapshot(closed)
    verdict = verify_folder(closed)
    assert len([each for each in verdict.store_problems if "checkpoint" not in each]) >= 1
    assert any(__import__("re").search(problem, each) for each in verdict.store_problems), verdict
    assert snapshot(closed) == before


def test_every_damaged_row_is_reported(closed: Path) -> None:
    execute(closed, "UPDATE segments SET text='x' WHERE seq IN (1, 2)")
    problems = verify_folder(closed).problems
    assert [problem[:6] for problem in problems] == ["Row 1 ", "Row 2 "]


def test_a_store_with_damaged_pages_is_reported_with_all_that_was_found(closed: Path) -> None:
    path = closed / "store.sqlite3"
    data = bytearray(path.read_bytes())
    pages = len(data) // schema_sql.PAGE_BYTES
    for page in range(3, pages):
        start = page * schema_sql.PAGE_BYTES
        data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)
    problems = verify_folder(closed).problems
    assert len(problems) > 1
    assert any("damaged" in problem for problem in problems)


def test_a_file_that_is_no_store_is_reported(closed: Path) -> None:
    (closed / "store.sqlite3").write_bytes(b"not a database" * 1000)
    (problem,) = verify_folder(closed).problems
    assert "file is not a database" in problem


def test_a_store_that_lost_its_log_is_reported(folder: Path, tmp_path: Path) -> None:
    with writing_process(folder) as acknowledged:
        for _ in range(20):
            acknowledged()
    (folder / "store.sqlite3-wal").unlink()
    problems = verify_folder(folder).problems
    assert any("was replaced by an older copy, or its -wal file was removed" in p for p in problems)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "is cut off"),
        (lambda path: path.write_bytes(b""), "is cut off"),
        (lambda path: flip(path, 200), "its checksum differs"),
    ],
)
def test_a_damaged_checkpoint_is_reported(
    closed: Path, damage: Callable[[Path], object], problem: str
) -> None:
    damage(closed / "transcript_index.faiss")
    verdict = verify_folder(closed)
    assert verdict.store_problems == []
    (found,) = verdict.checkpoint_problems
    assert found.startswith("transcript_index.faiss ")
    assert problem in found


def test_a_missing_checkpoint_is_no_problem(closed: Path) -> None:
    (closed / "transcript_index.faiss").unlink()
    (closed / "clip_index.faiss").unlink()
    verdict = verify_folder(closed)
    assert verdict.problems == []
    (note,) = verdict.notes
    assert "transcript_index.faiss is missing; the next start rebuilds it" in note


def test_a_checkpoint_that_contradicts_the_store_is_reported(closed: Path) -> None:
    whole = (closed / "transcript_index.faiss").read_bytes()
    cases = {
        "has 1 rows that the store lacks, first row 2": "DELETE FROM {} WHERE seq=2",
        "holds commit 3, the store only commit 2": "UPDATE meta SET value=2 WHERE key='commit_id'",
        "belongs to another store": "UPDATE meta SET value='x' WHERE key='store_id'",
    }
    for problem, statement in cases.items():
        copy = closed.with_name("copy")
        shutil.copytree(closed, copy)
        (copy / "store.last_commit").unlink()
        execute(copy, statement.format("segments"), statement.format("vectors"))
        (copy / "transcript_index.faiss").write_bytes(whole)
        assert any(problem in each for each in verify_folder(copy).problems), problem
        shutil.rmtree(copy)


def test_a_checkpoint_with_another_vector_is_reported(closed: Path) -> None:
    with SegmentIndex.open(closed, MODEL) as index:
        vectors = index._collections[TRANSCRIPT]._vectors
        vectors[1] = -vectors[1]
        index.checkpoint(force=True)
    (problem,) = verify_folder(closed).problems
    assert "transcript_index.faiss has another vector for row 2 than the store" in problem


def test_a_checkpoint_that_lacks_a_row_is_reported(closed: Path) -> None:
    with SegmentIndex.open(closed, MODEL) as index:
        state = index._published.current
        snapshots = dict(state.snapshots)
        old = snapshots[TRANSCRIPT]
        snapshots[TRANSCRIPT] = type(old)(old.vectors[1:], old.sequences[1:], old.dead)
        index._published.current = type(state)(state.commit_id, state.last_sequence, snapshots)
        index.checkpoint(force=True)
        index._published.current = state
    (problem,) = verify_folder(closed).problems
    assert "transcript_index.faiss lacks 1 rows that it should have, first row 1" in problem


# What every command does with what it can't read


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, Callable[[Path], object]]:
    return {
        "backup": lambda folder: back_up(folder, tmp_path / "target"),
        "restore": lambda folder: restore(folder, tmp_path / "new"),
        "verify": verify_folder,
    }


@pytest.mark.parametrize("command", ["backup", "restore", "verify"])
def test_a_newer_version_is_refused(
    closed: Path, commands: dict[str, Callable[[Path], object]], command: str
) -> None:
    execute(closed, f"UPDATE meta SET value={schema_sql.FORMAT + 1} WHERE key='format'")
    before = snapshot(closed)
    with pytest.raises(StoreMismatch, match="written by a newer version of this service"):
        commands[command](closed)
    assert snapshot(closed) == before


@pytest.mark.parametrize("command", ["backup", "restore", "verify"])
def test_files_of_the_old_service_are_named(
    tmp_path: Path, commands: dict[str, Callable[[Path], object]], command: str
) -> None:
    (tmp_path / "transcript_metadata.pkl").write_bytes(b"")
    with pytest.raises(LegacyFolder, match="import-legacy"):
        commands[command](tmp_path)


def test_a_view_is_read_again_if_a_service_began_to_write(closed: Path) -> None:
    seen = []

    def read(view: folder_view.FolderView) -> int:
        if len(seen) < 2:
            with SegmentIndex.open(closed, MODEL) as index:
                store_segments(index, 50 + len(seen), segment(1, "meanwhile"))
        seen.append(view.commit_id)
        return view.commit_id

    assert read_folder(closed, read) == 5
    assert seen == [3, 4, 5]


def test_a_folder_that_never_rests_is_given_up(closed: Path) -> None:
    count = itertools.count()

    def read(view: folder_view.FolderView) -> None:
        with SegmentIndex.open(closed, MODEL) as index:
            store_segments(index, next(count), segment(1, f"again {next(count)}"))

    with pytest.raises(NotReady, match="changed whenever it was read"):
        read_folder(closed, read)


def test_an_error_of_a_view_that_nobody_changed_is_raised_at_once(closed: Path) -> None:
    calls = []

    def read(view: folder_view.FolderView) -> None:
        calls.append(1)
        raise StoreDamaged("as it is")

    with pytest.raises(ServiceError, match="as it is"):
        read_folder(closed, read)
    assert calls == [1]


def test_the_log_of_a_damaged_store_stays(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3").write_bytes(b"not a database" * 1000)
    (tmp_path / "store.sqlite3-wal").write_bytes(b"what was in it")
    folder_install.fold_log(tmp_path)
    assert (tmp_path / "store.sqlite3").read_bytes() == b"not a database" * 1000
