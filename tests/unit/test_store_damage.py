"""Real damage to a real store: it is refused, or what is served is exactly what was stored."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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

from deployments.core.errors import StoreDamaged, StoreMismatch
from deployments.core.folders.salvaged_index import SalvagedIndex
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, Hit, Segment, Upsert
from deployments.core.storage import store_inspection
from deployments.core.storage.schema_sql import PAGE_BYTES

Hits = dict[EmbeddingType, list[Hit]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed folder of several hundred rows; tests damage copies of it."""
    folder = tmp_path_factory.mktemp("source") / "index"
    fill_pages(folder)
    return folder


@pytest.fixture(scope="module")
def stored(source: Path) -> Hits:
    with SegmentIndex.open(source, MODEL) as index:
        return everything(index)


@pytest.fixture
def damaged(source: Path, folder: Path) -> Path:
    """A copy to damage; what its store file is."""
    shutil.copytree(source, folder)
    return folder / "store.sqlite3"


def everything(index: SegmentIndex | SalvagedIndex) -> Hits:
    return {kind: find(index, "some query", kind=kind) for kind in EmbeddingType}  # type: ignore[arg-type]


def without_checkpoints(store: Path) -> None:
    for path in store.parent.glob("*_index.faiss"):
        path.unlink()


def refusal(store: Path) -> str:
    """Why the folder can't be opened; opening it changed nothing."""
    before = store.read_bytes()
    with pytest.raises(StoreDamaged) as raised:
        SegmentIndex.open(store.parent, MODEL)
    assert store.read_bytes() == before
    assert not store.with_name("store.sqlite3-wal").exists()
    return raised.value.detail


TREES = ("segments", "vectors", "segments_by_name", "segments_by_text", "meta", "models")


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("page", ["leaf", "root"])
@pytest.mark.parametrize("small", [True, False])
def test_a_zeroed_page_is_never_an_answer_with_fewer_rows(
    damaged: Path, stored: Hits, tree: str, page: str, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = leaves_of(damaged, tree) if page == "leaf" else pages_of(damaged, tree)
    zero_page(damaged, pages[len(pages) // 2 if page == "leaf" else 0])
    if small:
        message = refusal(damaged)
        assert "damaged" in message or "lacks" in message
        assert "embeddings-service restore" in message
        return
    # As a store that is too large to be checked at the start.
    monkeypatch.setattr(store_inspection, "_CHECKED_BYTES", 0)
    served_or_refused(damaged.parent, stored)


def served_or_refused(folder: Path, stored: Hits) -> None:
    try:
        index = SegmentIndex.open(folder, MODEL)
    except (StoreDamaged, StoreMismatch):
        return
    with index:
        for kind in EmbeddingType:
            try:
                assert find(index, "some query", kind=kind) == stored[kind]
            except StoreDamaged:
                assert index.damage.current is not None


@pytest.mark.parametrize("bytes_left", ["whole pages", "half a page", "half", "nothing", "header"])
def test_a_store_that_was_cut_off_is_refused(damaged: Path, bytes_left: str) -> None:
    content = damaged.read_bytes()
    left = {
        "whole pages": len(content) - 5 * PAGE_BYTES,
        "half a page": len(content) - PAGE_BYTES // 2,
        "half": len(content) // 2,
        "nothing": 0,
        "header": 60,
    }[bytes_left]
    damaged.write_bytes(content[:left])
    refusal(damaged)
    without_checkpoints(damaged)
    refusal(damaged)


def test_a_store_that_vanished_is_noticed_without_checkpoints(damaged: Path) -> None:
    damaged.unlink()
    without_checkpoints(damaged)
    with pytest.raises(StoreDamaged, match=r"has store\.last_commit but no store\.sqlite3"):
        SegmentIndex.open(damaged.parent, MODEL)


def test_other_tables_are_damage(damaged: Path) -> None:
    flip_text(damaged, b"    text_hash BLOB NOT NULL,")  # its first blank
    message = refusal(damaged)
    assert "damaged" in message


def test_definitions_that_still_parse_are_compared(damaged: Path) -> None:
    content = damaged.read_bytes()
    assert content.count(b"    metadata TEXT") == 1
    position = content.index(b"    metadata TEXT") + 4
    overwrite(damaged, position, b"metadatb")
    assert "definition of segments isn't the one" in refusal(damaged)


@pytest.mark.parametrize("from_checkpoint", [True, False])
def test_a_flipped_text_is_never_served(damaged: Path, stored: Hits, from_checkpoint: bool) -> None:
    flip_text(damaged, b"Text 5 7 ")
    if not from_checkpoint:
        without_checkpoints(damaged)
        assert "Row 208 (transcript, media item 5, segment 7) is not what" in refusal(damaged)
        return
    with SegmentIndex.open(damaged.parent, MODEL) as index:
        assert index.damage.current is None
        # What doesn't touch the row is right, and the row itself is an error.
        assert find(index, "some query", kind=FRAME) == stored[FRAME]
        with pytest.raises(StoreDamaged, match=r"Row 208 .* is not what was written"):
            find(index, "Text 5 7 ")
        refuses_writes(index)
        # Known damage stays known, and other answers stay right.
        assert find(index, "some query", kind=FRAME) == stored[FRAME]


def refuses_writes(index: SegmentIndex) -> None:
    for write in (
        lambda: store_segments(index, "new", segment(1)),
        lambda: index.delete_media("f"),
    ):
        with pytest.raises(StoreDamaged) as raised:
            write()
        assert "Writes are refused" in raised.value.detail
        assert "embeddings-service restore" in raised.value.detail
    damage = index.stats().damage
    assert damage is not None
    assert index.condition().damage == damage


def test_a_flipped_vector_does_not_reach_a_search(damaged: Path, stored: Hits) -> None:
    flip_in_page(damaged, leaves_of(damaged, "vectors")[-1], -3)
    with SegmentIndex.open(damaged.parent, MODEL) as index:
        # From the checkpoint, proven by the checksum of each row.
        assert everything(index) == stored
    without_checkpoints(damaged)
    assert "is not what was written" in refusal(damaged)


def test_a_damaged_vector_is_not_passed_on_to_another_row(damaged: Path, stored: Hits) -> None:
    flip_in_page(damaged, leaves_of(damaged, "vectors")[-1], -3)
    with SegmentIndex.open(damaged.parent, MODEL) as index:
        texts = [hit.segment for hit in stored[FRAME]]
        copies = tuple(Segment(f"copy {each.id}", each.text) for each in texts)
        with pytest.raises(StoreDamaged, match="is not what was written"):
            index.apply([Upsert(FRAME, "f", copies)])
        refuses_writes(index)
        assert everything(index) == stored


def test_a_damaged_text_is_not_confirmed_as_stored(damaged: Path, stored: Hits) -> None:
    flip_text(damaged, b"Text 5 7 ")
    (wanted,) = (hit for hit in stored[TRANSCRIPT] if (hit.media_item_id, hit.segment.id) == (5, 7))
    with SegmentIndex.open(damaged.parent, MODEL) as index:
        with pytest.raises(StoreDamaged, match="is not what was written"):
            index.apply([Upsert(TRANSCRIPT, 5, (wanted.segment,))])
        refuses_writes(index)


@pytest.mark.parametrize("tree", ["segments_by_name", "segments_by_text"])
def test_indices_that_differ_are_damage_though_their_pages_are_sound(
    damaged: Path, tree: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_inspection, "_CHECKED_BYTES", 0)
    # One cell less in a leaf: SQLite reads it without complaint.
    page = leaves_of(damaged, tree)[0]
    cells = int.from_bytes(damaged.read_bytes()[(page - 1) * PAGE_BYTES :][3:5], "big")
    overwrite(damaged, (page - 1) * PAGE_BYTES + 3, (cells - 1).to_bytes(2, "big"))
    assert "The indices of the store differ in their" in refusal(damaged)


def test_a_number_that_was_given_before_is_damage(damaged: Path) -> None:
    with closing(sqlite3.connect(damaged)) as connection, connection:
        connection.execute("UPDATE sqlite_sequence SET seq=5")
    assert "gave numbers from 1 to 5 only" in refusal(damaged)


def test_a_damaged_log_is_an_older_state_and_refused(folder: Path, tmp_path: Path) -> None:
    with SegmentIndex.open(folder, MODEL) as index:
        store_segments(index, 1, segment("a"))
        store_segments(index, 1, segment("b"))
        killed = tmp_path / "killed"
        shutil.copytree(folder, killed)
    log = killed / "store.sqlite3-wal"
    log.write_bytes(log.read_bytes()[:-PAGE_BYTES])
    (killed / "store.sqlite3-shm").unlink()
    with pytest.raises(StoreDamaged, match="-wal file was removed"):
        SegmentIndex.open(killed, MODEL)


flips = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=6
)
places = st.sampled_from(["anywhere", "header", "start of a page"])


@given(flips, places, st.booleans(), st.booleans())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_flipped_bytes_anywhere(
    source: Path,
    stored: Hits,
    monkeypatch: pytest.MonkeyPatch,
    flips: list[tuple[float, int]],
    place: str,
    small: bool,
    with_checkpoints: bool,
) -> None:
    content = bytearray((source / "store.sqlite3").read_bytes())
    for where, bits in flips:
        position = int(where * len(content))
        if place == "header":
            position = int(where * 3000)
        elif place == "start of a page":
            position = position // PAGE_BYTES * PAGE_BYTES + position % 120
        content[position] ^= bits
    monkeypatch.setattr(store_inspection, "_CHECKED_BYTES", 64 * 1024 * 1024 if small else 0)
    with TemporaryDirectory(dir=source.parent) as place_of_copies:
        for name in ("opened", "salvaged"):
            folder = Path(place_of_copies) / name
            shutil.copytree(source, folder)
            (folder / "store.sqlite3").write_bytes(content)
            if not with_checkpoints:
                without_checkpoints(folder / "store.sqlite3")
        served_or_refused(Path(place_of_copies) / "opened", stored)
        only_what_was_stored(Path(place_of_copies) / "salvaged", stored, bytes(content))


def only_what_was_stored(folder: Path, stored: Hits, content: bytes) -> None:
    try:
        index = SalvagedIndex.open(folder, MODEL)
    except (StoreDamaged, StoreMismatch):
        return
    finally:
        assert (folder / "store.sqlite3").read_bytes() == content
    known = {hit.sequence: hit for hits in stored.values() for hit in hits}
    with index:
        salvage = index.stats().salvage
        assert salvage is not None
        found = [hit for hits in everything(index).values() for hit in hits]
        assert [known[hit.sequence] for hit in found] == found
        assert len(found) == salvage.intact_rows
        if salvage.lost_are_counted:
            assert salvage.intact_rows + salvage.lost_rows >= len(known)
    assert (folder / "store.sqlite3").read_bytes() == content
