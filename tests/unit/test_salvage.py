"""What can be saved from a damaged store: exactly the rows that are intact, changing nothing."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from folder_samples import snapshot
from page_damage import (
    fill_pages,
    flip_in_page,
    flip_text,
    leaves_of,
    overwrite,
    pages_of,
    zero_page,
)
from storage_samples import FRAME, MODEL, TRANSCRIPT, find, segment, store_segments
from typer.testing import CliRunner

from deployments.client.cli import app
from deployments.core.errors import (
    FolderLocked,
    LegacyFolder,
    NotReady,
    StoreDamaged,
    StoreMismatch,
)
from deployments.core.folders.export import import_file
from deployments.core.folders.salvage_export import export_salvage
from deployments.core.folders.salvaged_index import SalvagedIndex
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import DeleteMedia, EmbeddingType, Hit, ModelIdentity
from deployments.core.storage.row_walk import RowWalk
from deployments.core.storage.schema_sql import PAGE_BYTES

Rows = dict[int, Hit]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "index"
    fill_pages(folder)
    return folder


@pytest.fixture(scope="module")
def stored(source: Path) -> Rows:
    with SegmentIndex.open(source, MODEL) as index:
        return rows_of(index)


def rows_of(index: SegmentIndex | SalvagedIndex) -> Rows:
    return {
        hit.sequence: hit
        for kind in EmbeddingType
        for hit in find(index, "some query", kind=kind)  # type: ignore[arg-type]
    }


@pytest.fixture
def damaged(source: Path, folder: Path) -> Path:
    """A copy without checkpoints to damage; what its store file is."""
    shutil.copytree(source, folder)
    for path in folder.glob("*_index.faiss"):
        path.unlink()
    return folder / "store.sqlite3"


def rows_on(store: Path, tree: str, page: int) -> set[int]:
    """Sequence numbers of the rows whose cells lie on a leaf page of a table."""
    content = store.read_bytes()[(page - 1) * PAGE_BYTES : page * PAGE_BYTES]
    found = set()
    for cell in range(int.from_bytes(content[3:5], "big")):
        at = int.from_bytes(content[8 + 2 * cell : 10 + 2 * cell], "big")
        _, at = varint(content, at)
        found.add(varint(content, at)[0])
    return found


def varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    while True:
        value = value << 7 | content[at] & 0x7F
        at += 1
        if content[at - 1] < 0x80:
            return value, at


def salvaged(store: Path, stored: Rows) -> set[int]:
    """The rows that are lost; all others are as they were stored, and no file was changed."""
    before = snapshot(store.parent)
    with SalvagedIndex.open(store.parent, MODEL) as index:
        found = rows_of(index)
        salvage = index.stats().salvage
        assert salvage is not None
        assert salvage.lost_are_counted
        assert sum(index.stats().vectors.values()) == salvage.intact_rows == len(found)
    assert {seq: stored[seq] for seq in found} == found
    lost = stored.keys() - found.keys()
    assert salvage.lost_rows == len(lost)
    assert salvage.missing_commits == 0
    media_items = {str(stored[seq].media_item_id) for seq in lost}
    assert set(salvage.media_items) == media_items or len(media_items) > 20
    after = snapshot(store.parent)
    after.pop(".lock", None)
    before.pop(".lock", None)
    assert after == before
    return lost


def test_a_whole_store_loses_nothing(damaged: Path, stored: Rows) -> None:
    assert salvaged(damaged, stored) == set()


def test_a_flipped_text_loses_its_row(damaged: Path, stored: Rows) -> None:
    flip_text(damaged, b"Text 5 7 ")
    (lost,) = salvaged(damaged, stored)
    assert (stored[lost].media_item_id, stored[lost].segment.id) == (5, 7)


@pytest.mark.parametrize("tree", ["segments", "vectors"])
@pytest.mark.parametrize("position", [0, 1, -1])
def test_an_unreadable_page_loses_its_rows_alone(
    damaged: Path, stored: Rows, tree: str, position: int
) -> None:
    page = leaves_of(damaged, tree)[position]
    expected = rows_on(damaged, tree, page)
    assert len(expected) >= 3
    zero_page(damaged, page)
    assert salvaged(damaged, stored) == expected


def test_two_unreadable_pages_apart(damaged: Path, stored: Rows) -> None:
    pages = leaves_of(damaged, "segments")[3], leaves_of(damaged, "segments")[9]
    expected = rows_on(damaged, "segments", pages[0]) | rows_on(damaged, "segments", pages[1])
    for page in pages:
        zero_page(damaged, page)
    assert salvaged(damaged, stored) == expected


def test_vectors_come_from_the_checkpoint_where_the_store_lost_them(
    source: Path, damaged: Path, stored: Rows
) -> None:
    for page in pages_of(damaged, "vectors"):
        zero_page(damaged, page)
    assert salvaged(damaged, stored) == set(stored)
    for path in source.glob("*_index.faiss"):
        shutil.copy(path, damaged.parent)
    assert salvaged(damaged, stored) == set()


@pytest.mark.parametrize("tree", ["segments_by_name", "segments_by_text"])
@pytest.mark.parametrize("page", ["root", "leaf", "flip"])
def test_a_damaged_index_loses_nothing(damaged: Path, stored: Rows, tree: str, page: str) -> None:
    if page == "flip":
        flip_in_page(damaged, leaves_of(damaged, tree)[0], -3)
    else:
        zero_page(damaged, (pages_of if page == "root" else leaves_of)(damaged, tree)[0])
    with SalvagedIndex.open(damaged.parent, MODEL) as index:
        assert rows_of(index) == stored


def test_without_any_index_the_numbers_are_tried(damaged: Path, stored: Rows) -> None:
    page = leaves_of(damaged, "segments")[4]
    lost = rows_on(damaged, "segments", page)
    for each in (
        page,
        pages_of(damaged, "segments_by_name")[0],
        pages_of(damaged, "segments_by_text")[0],
    ):
        zero_page(damaged, each)
    with SalvagedIndex.open(damaged.parent, MODEL) as index:
        assert rows_of(index).keys() == stored.keys() - lost
        salvage = index.stats().salvage
        assert salvage is not None
        assert not salvage.lost_are_counted
        assert "at least" in salvage.summary


@pytest.mark.parametrize("tree", ["meta", "models"])
def test_without_its_model_nothing_is_provable(damaged: Path, tree: str) -> None:
    zero_page(damaged, pages_of(damaged, tree)[0])
    nothing_is_provable(damaged)


def nothing_is_provable(store: Path) -> None:
    before = snapshot(store.parent)
    with pytest.raises(StoreDamaged, match="there is nothing to salvage"):
        SalvagedIndex.open(store.parent, MODEL)
    with pytest.raises(StoreDamaged, match="there is nothing to salvage"):
        export_salvage(store.parent, store.with_name("x.jsonl"))
    assert not store.with_name("x.jsonl").exists()
    before.pop(".lock", None)
    after = snapshot(store.parent)
    after.pop(".lock", None)
    assert after == before


@pytest.mark.parametrize("content", [b"", b"x" * 5 * PAGE_BYTES])
def test_a_store_without_a_header(damaged: Path, content: bytes) -> None:
    damaged.write_bytes(content)
    nothing_is_provable(damaged)


def test_a_zeroed_first_page(damaged: Path) -> None:
    zero_page(damaged, 1)
    nothing_is_provable(damaged)


def test_a_store_that_was_cut_off(damaged: Path, stored: Rows, tmp_path: Path) -> None:
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) * 2 // 3])
    before = snapshot(damaged.parent)
    with SalvagedIndex.open(damaged.parent, MODEL) as index:
        found = rows_of(index)
        assert {seq: stored[seq] for seq in found} == found
        assert 50 < len(found) < len(stored)
    done = export_salvage(damaged.parent, tmp_path / "x.jsonl")
    assert sum(done.exported.segments.values()) == len(found)
    before.pop(".lock", None)
    after = snapshot(damaged.parent)
    after.pop(".lock", None)
    assert after == before


def test_a_missing_log_is_an_older_state_and_said_so(folder: Path, tmp_path: Path) -> None:
    with SegmentIndex.open(folder, MODEL) as index:
        store_segments(index, 1, segment("a"))
    with SegmentIndex.open(folder, MODEL) as index:
        store_segments(index, 1, segment("b"))
        index.delete_media(1)
        killed = tmp_path / "killed"
        shutil.copytree(folder, killed)
    for name in ("store.sqlite3-wal", "store.sqlite3-shm"):
        (killed / name).unlink()
    with pytest.raises(StoreDamaged, match="searches the older state, read-only"):
        SegmentIndex.open(killed, MODEL)
    with SalvagedIndex.open(killed, MODEL) as salvaged:
        (hit,) = rows_of(salvaged).values()
        assert hit.segment == segment("a")
        salvage = salvaged.stats().salvage
        assert salvage is not None
        assert (salvage.lost_rows, salvage.missing_commits) == (0, 2)
        assert "The last 2 writes are missing" in salvage.summary
        assert "deleted rows may be back" in salvage.summary


def test_a_log_that_is_there_is_read(folder: Path, tmp_path: Path) -> None:
    with SegmentIndex.open(folder, MODEL) as index:
        store_segments(index, 1, segment("a"), segment("b"))
        expected = rows_of(index)
        killed = tmp_path / "killed"
        shutil.copytree(folder, killed)
    with SalvagedIndex.open(killed, MODEL) as salvaged:
        assert rows_of(salvaged) == expected
        salvage = salvaged.stats().salvage
        assert salvage is not None
        assert salvage.missing_commits == 0


def test_writes_are_refused(damaged: Path) -> None:
    flip_text(damaged, b"Text 5 7 ")
    with SalvagedIndex.open(damaged.parent, MODEL) as index:
        with pytest.raises(StoreDamaged) as raised:
            index.apply([DeleteMedia(5)])
        for part in ("EMBEDDINGS_SALVAGE", "859 rows are intact, 1 are lost", "export --salvage"):
            assert part in raised.value.detail
        assert not index.checkpoint_due()
        condition = index.condition()
        assert condition.damage is not None
        assert condition.damage.rows == 1
        with pytest.raises(FolderLocked):
            SegmentIndex.open(damaged.parent, MODEL)
    with pytest.raises(NotReady):
        find(index)  # type: ignore[arg-type]


def test_rows_that_are_damaged_later_are_served_as_they_were(damaged: Path) -> None:
    with SalvagedIndex.open(damaged.parent, MODEL) as index:
        before = rows_of(index)
        flip_text(damaged, b"Text 5 7 ")
        assert len(before) == 860
        assert rows_of(index) == before


def test_what_is_no_damage_is_refused_as_ever(damaged: Path, tmp_path: Path) -> None:
    other = ModelIdentity("other", "0f" * 32, 16)
    with pytest.raises(StoreMismatch, match="set EMBEDDING_MODEL=sample-model"):
        SalvagedIndex.open(damaged.parent, other)
    old = tmp_path / "old"
    old.mkdir()
    (old / "clip_metadata.pkl").write_bytes(b"old")
    with pytest.raises(LegacyFolder):
        SalvagedIndex.open(old, MODEL)
    SegmentIndex.open(damaged.parent, MODEL).close()  # the lock is free


def test_rows_that_no_index_names_are_not_salvaged(damaged: Path, stored: Rows) -> None:
    # As old versions of rows, on a page that was free and that damage has linked again.
    before, pages = damaged.read_bytes(), pages_of(damaged, "segments")
    with closing(sqlite3.connect(damaged)) as connection, connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("DELETE FROM segments WHERE seq<=3")
    assert pages_of(damaged, "segments") == pages
    for page in pages:
        start = (page - 1) * PAGE_BYTES
        overwrite(damaged, start, before[start : start + PAGE_BYTES])
    with SalvagedIndex.open(damaged.parent, MODEL) as index:
        assert rows_of(index) == {seq: hit for seq, hit in stored.items() if seq > 3}


def run_export(folder: Path, file: Path, *options: str) -> tuple[int, str]:
    arguments = ["export", str(file), "--index-dir", str(folder), *options]
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet"])
def test_an_export_of_what_is_intact_can_be_imported(
    damaged: Path, stored: Rows, tmp_path: Path, new: Path, name: str
) -> None:
    page = leaves_of(damaged, "segments")[2]
    lost = rows_on(damaged, "segments", page)
    zero_page(damaged, page)
    file = tmp_path / name
    code, output = run_export(damaged.parent, file)
    assert (code, file.exists()) == (1, False)
    code, output = run_export(damaged.parent, file, "--salvage")
    assert code == 3
    assert f"{len(stored) - len(lost)} rows are intact, {len(lost)} are lost." in output
    import_file(file, new)
    with SegmentIndex.open(new, MODEL) as index:
        assert index.verify() == []
        found = [
            (hit.media_item_id, hit.segment, hit.cosine)
            for kind in (TRANSCRIPT, FRAME)
            for hit in find(index, "some query", kind=kind)
        ]
        expected = [
            (hit.media_item_id, hit.segment, hit.cosine)
            for seq, hit in stored.items()
            if seq not in lost
        ]
        assert found == expected


def test_a_salvaged_export_of_a_whole_folder_is_an_export(damaged: Path, tmp_path: Path) -> None:
    assert run_export(damaged.parent, tmp_path / "a.jsonl")[0] == 0
    code, output = run_export(damaged.parent, tmp_path / "b.jsonl", "--salvage", "--json")
    assert code == 0
    assert '"lost_rows": 0' in output
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


@pytest.mark.parametrize(
    "bad", [set(), {1}, {50}, {7, 8, 9}, set(range(20, 35)), set(range(1, 51))]
)
@pytest.mark.parametrize("known", [True, False])
def test_a_walk_reads_everything_around_what_can_not_be_read(bad: set[int], known: bool) -> None:
    there = [each for each in range(1, 51) if each % 3]
    reads = 0

    def between(first: int, last: int):  # type: ignore[no-untyped-def]
        nonlocal reads
        reads += 1
        for each in range(first, last + 1):
            if each in bad:
                raise sqlite3.DatabaseError("damaged")
            if each in there:
                yield (each, "row")

    asked: list[int] = []

    def alone(sequence: int) -> tuple[int, str] | None:
        asked.append(sequence)
        return None if sequence % 2 else (sequence, "alone")

    walk = RowWalk(between, alone)
    found = list(walk.rows(there if known else range(1, 51)))
    assert walk.complete
    assert [seq for seq, how in found if how == "row"] == [e for e in there if e not in bad]
    assert asked == sorted(set(asked))
    assert set(asked) >= {each for each in bad if each in there}
    assert [seq for seq, _ in found] == sorted({seq for seq, _ in found})


def test_rows_out_of_order_end_a_range() -> None:
    # As two links to one page would bring them.
    walk = RowWalk(lambda first, last: iter([(1,), (2,), (1,), (2,)]), lambda seq: None)
    assert [row[0] for row in walk.rows([1, 2])] == [1, 2]


def test_a_walk_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.core.storage.row_walk._MOST_FAILURES", 1000)

    def between(first: int, last: int):  # type: ignore[no-untyped-def]
        raise sqlite3.DatabaseError("damaged")

    walk = RowWalk(between, lambda _: None)
    assert list(walk.rows(range(1, 2**60))) == []
    assert not walk.complete
