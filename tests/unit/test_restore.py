import itertools
import re
import shutil
from pathlib import Path

import pytest
from folder_samples import (
    FILLED,
    INDEX_FILES,
    change_a_text,
    everything,
    flip,
    names,
    snapshot,
    transcripts,
    writing_process,
)
from kill_points import kill_everywhere
from storage_samples import CLIP, FRAME, MODEL, TRANSCRIPT, find, segment, store_segments, stored

from deployments.core.errors import (
    FolderLocked,
    InvalidInput,
    StoreDamaged,
    StoreError,
)
from deployments.core.folders import folder_install
from deployments.core.folders import restore as restore_module
from deployments.core.folders.backup import back_up
from deployments.core.folders.restore import restore
from deployments.core.index.segment_index import SegmentIndex


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
        assert everything(index).keys() >= {(media, 2) for media in range(last + 1)}
    with SegmentIndex.open(folder, MODEL) as index:
        assert index.verify() == []
        assert 5 * 2 <= len(everything(index)) < 2 * last


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


def test_a_restore_killed_anywhere_leaves_the_old_or_the_new(memory_folder: Path) -> None:
    template = memory_folder / "template"
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

    found = kill_everywhere(template, "restore", "{}/backup", "--index-dir", "{}/index", "--force")
    assert len(found) > 20
    survived = [each["survived"] for each in found]
    assert all(each in (new, old) for each in survived), survived
    # Replaced at one moment, and not restored to before again.
    assert [each for each, _ in itertools.groupby(survived)] == [new, old]
    assert all(each["repeated_status"] == 0 and each["repeated"] == old for each in found)
    for each in found:
        kept = [
            name for name in each["repeated_files"] if re.match(r".*replaced-.*/store.sq", name)
        ]
        # What a run that was cut off before that moment had begun to keep is forgotten.
        assert len(kept) == (1 if each["survived"] == new else 2), each


def test_the_log_of_a_damaged_store_stays(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3").write_bytes(b"not a database" * 1000)
    (tmp_path / "store.sqlite3-wal").write_bytes(b"what was in it")
    folder_install.fold_log(tmp_path)
    assert (tmp_path / "store.sqlite3").read_bytes() == b"not a database" * 1000
