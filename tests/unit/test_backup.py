import os
import shutil
from pathlib import Path

import pytest
from folder_samples import (
    FILLED,
    INDEX_FILES,
    change_a_text,
    everything,
    fill,
    names,
    snapshot,
    transcripts,
    writing_process,
)
from kill_points import kill_everywhere
from storage_samples import (
    CLIP,
    FRAME,
    MODEL,
    MODELS,
    TRANSCRIPT,
    find,
    segment,
    store_segments,
    stored,
)

from deployments.core.errors import (
    FolderLocked,
    InvalidInput,
    StoreDamaged,
    StoreError,
)
from deployments.core.folders.backup import back_up
from deployments.core.folders.folder_verify import verify_folder
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.storage.folder_lock import FolderLock


def test_a_backup_is_an_index_folder_with_the_same_content(closed: Path, target: Path) -> None:
    before = snapshot(closed)
    copied = back_up(closed, target)
    assert snapshot(closed) == before
    assert copied.models == MODELS
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
            assert verify_folder(folder).problems == []
            with SegmentIndex.open(target, MODEL) as index:
                assert index.verify() == []
                assert index.stats().rebuilt == {}
                found = everything(index)
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


def test_a_backup_killed_anywhere_is_whole_or_absent(memory_folder: Path) -> None:
    template = memory_folder / "template"
    with SegmentIndex.open(template / "index", MODEL) as index:
        fill(index)
    found = kill_everywhere(template, "backup", "{}/copy", "--index-dir", "{}/index")
    assert len(found) > 5
    for each in found:
        assert each["survived"] == each["repeated"] != "StoreDamaged"
        copied = [name.split()[0] for name in each["files"] if name.startswith("copy/")]
        assert copied in ([], [f"copy/{name}" for name in INDEX_FILES])
        # A folder that has a backup takes no other.
        assert each["repeated_status"] == (1 if copied else 0)
        repeated = {name.split()[0] for name in each["repeated_files"] if "index/" not in name}
        assert repeated == {f"copy/{name}" for name in INDEX_FILES}
