import itertools
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from folder_samples import (
    change_a_text,
    execute,
    flip,
    snapshot,
    writing_process,
)
from storage_samples import CLIP, FRAME, MODEL, MODELS, TRANSCRIPT, segment, store_segments

from deployments.core.errors import (
    LegacyFolder,
    NotReady,
    ServiceError,
    StoreDamaged,
    StoreMismatch,
)
from deployments.core.folders import folder_view
from deployments.core.folders.backup import back_up
from deployments.core.folders.folder_verify import verify_folder
from deployments.core.folders.folder_view import read_folder
from deployments.core.folders.restore import restore
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.storage import schema_sql


def test_a_whole_folder_has_no_problems_and_is_left_as_it_is(closed: Path) -> None:
    before = snapshot(closed)
    verdict = verify_folder(closed)
    assert verdict.problems == []
    assert verdict.notes == []
    assert verdict.segments == {TRANSCRIPT: 3, FRAME: 1, CLIP: 0}
    assert verdict.models == MODELS
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
    assert any(re.search(problem, each, re.DOTALL) for each in verdict.store_problems), verdict
    assert snapshot(closed) == before


def test_every_damaged_row_is_reported(closed: Path) -> None:
    execute(closed, "UPDATE segments SET text='x' WHERE seq IN (1, 2)")
    problems = verify_folder(closed).problems
    assert [problem[:6] for problem in problems] == ["Row 1 ", "Row 2 "]


def test_what_can_be_read_of_a_damaged_file_is_checked(folder: Path) -> None:
    with SegmentIndex.open(folder, MODEL) as index:
        for number in range(60):
            store_segments(index, number, segment(1, "x" * 900))
    change_a_text(folder)
    path = folder / "store.sqlite3"
    data = bytearray(path.read_bytes())
    leaf = data.rindex(b"x" * 900) // schema_sql.PAGE_BYTES * schema_sql.PAGE_BYTES
    data[leaf : leaf + 64] = b"\xff" * 64
    path.write_bytes(data)
    problems = verify_folder(folder).store_problems
    assert any(problem.startswith("Row 1 ") for problem in problems), problems
    assert any("database disk image is malformed" in problem for problem in problems), problems


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
        "has 1 rows that the store lacks, first row 2": "DELETE FROM {} WHERE {}=2",
        "holds commit 3, the store only commit 2": "UPDATE meta SET value=2 WHERE key='commit_id'",
        "belongs to another store": "UPDATE meta SET value='x' WHERE key='store_id'",
    }
    for problem, statement in cases.items():
        copy = closed.with_name("copy")
        shutil.copytree(closed, copy)
        (copy / "store.last_commit").unlink()
        tables = ("segments", "seq"), ("vectors", "seq"), ("keywords", "rowid")
        execute(copy, *(statement.format(*each) for each in tables))
        execute(copy, statement.format("keyword_lengths", "seq"))
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
        snapshots[TRANSCRIPT] = replace(old, vectors=old.vectors[1:], sequences=old.sequences[1:])
        index._published.current = type(state)(state.commit_id, state.last_sequence, snapshots)
        index.checkpoint(force=True)
        index._published.current = state
    (problem,) = verify_folder(closed).problems
    assert "transcript_index.faiss lacks 1 rows that it should have, first row 1" in problem


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
