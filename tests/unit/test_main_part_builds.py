"""Main parts of a whole index: built beside readers and writers, kept, lost, damaged, given up."""

import errno
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from faulty_disk import FaultyDisk
from folder_samples import flip
from storage_samples import (
    FRAME,
    MODEL,
    TRANSCRIPT,
    find,
    random_units,
    segment,
    store_segments,
    vectors_of,
)
from test_segment_index_threads import running

from deployments.core.folders.backup import back_up
from deployments.core.folders.folder_verify import verify_folder
from deployments.core.folders.restore import restore
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, IndexState, IndexType, Search, Segment, Upsert
from deployments.core.vectors import (
    main_part_build,
    main_part_builds,
    main_part_files,
    main_part_types,
)
from deployments.core.vectors.index_policy import IndexPolicy, Limits

SMALL = Limits(least_rows=100, scanned_work=200 * 48, fresh_work=50 * 48)
Open = Callable[..., SegmentIndex]


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_part_types, "CANDIDATES", dict.fromkeys(IndexType, 4))
    monkeypatch.setattr(main_part_builds, "_WORTH_KEEPING_S", 0.0)


@pytest.fixture
def open_with(folder: Path) -> Iterator[Open]:
    with ExitStack() as opened:

        def open_it(kind: IndexType, **options: object) -> SegmentIndex:
            policy = IndexPolicy({TRANSCRIPT: kind}, SMALL)
            return opened.enter_context(
                SegmentIndex.open(folder, MODEL, policy=policy, **options)  # type: ignore[arg-type]
            )

        yield open_it


def texts(count: int, first: int = 0) -> list[Segment]:
    return [segment(i, f"text {i}") for i in range(first, first + count)]


def state(index: SegmentIndex, kind: EmbeddingType = TRANSCRIPT) -> IndexState:
    return index.stats().indices[kind]


def settle(index: SegmentIndex) -> IndexState:
    assert index.wait_for_builds(60)
    return state(index)


def answers(index: SegmentIndex, exact: bool) -> list[list[tuple[float, int]]]:
    queries = vectors_of([f"text {i}" for i in range(0, 300, 10)])
    found = index.search([Search(TRANSCRIPT, 5, exact=exact)] * len(queries), queries)
    return [[(hit.cosine, hit.sequence) for hit in hits] for hits in found]


@pytest.mark.parametrize("kind", [IndexType.HNSW, IndexType.IVF, IndexType.RABITQ, IndexType.PQ])
def test_a_main_part_comes_by_itself_and_grows(open_with: Open, kind: IndexType) -> None:
    index = open_with(kind)
    store_segments(index, 1, *texts(99))
    assert settle(index) == IndexState(kind, IndexType.FLAT, 99, 0, 0, False, None, None)
    store_segments(index, 2, *texts(101, 99))
    built = settle(index)
    assert (built.type, built.rows, built.main_rows) == (kind, 200, 200)
    assert built.recall_at_10 is not None
    assert built.recall_at_10 > 0.3
    # Some fresh rows are scanned; with more the main part takes them in.
    store_segments(index, 3, *texts(49, 200))
    assert settle(index).main_rows == 200
    assert find(index, "text 230", 1)[0].cosine == 1.0
    store_segments(index, 3, *texts(10, 249))
    assert settle(index).main_rows == 259
    assert find(index, "text 230", 1)[0].cosine == 1.0
    assert index.verify() == []
    # With most of it deleted it is built anew, and dropped when little is left.
    index.delete_media(2)
    assert settle(index).main_rows == index.stats().vectors[TRANSCRIPT] == 158
    index.delete_media(3)
    assert settle(index) == IndexState(kind, IndexType.FLAT, 99, 160, 0, False, None, None)


def test_auto_scans_until_that_is_slow(open_with: Open) -> None:
    index = open_with(IndexType.AUTO)
    store_segments(index, 1, *texts(199))
    assert settle(index).type is IndexType.FLAT
    store_segments(index, 2, segment("one more"))
    assert settle(index).type is IndexType.PQ
    # It doesn't go back and forth at the limit.
    index.delete_media(2)
    assert settle(index).type is IndexType.PQ
    store_segments(index, 1, *texts(99), replace=True)
    assert settle(index).type is IndexType.FLAT


def test_without_a_policy_nothing_is_built(folder: Path) -> None:
    with SegmentIndex.open(folder, MODEL) as index:
        store_segments(index, 1, *texts(3000))
        assert settle(index).type is IndexType.FLAT


@pytest.mark.parametrize("kind", [IndexType.HNSW, IndexType.IVF, IndexType.RABITQ, IndexType.PQ])
def test_exact_searches_are_exact_beside_others(open_with: Open, kind: IndexType) -> None:
    index = open_with(kind)
    store_segments(index, 1, *texts(400))
    assert settle(index).type is kind
    query = vectors_of(["something"])[0]
    searches = [Search(TRANSCRIPT, 7), Search(TRANSCRIPT, 7, exact=True), Search(FRAME, 7)]
    some, exact, none = index.search(searches, np.array([query] * 3))
    index.close()
    with SegmentIndex.open(index.folder, MODEL) as scanned:
        assert exact == scanned.search(searches[:1], query[None])[0]
    assert len(some) == 7
    assert none == []


def test_a_main_part_is_swapped_in_beside_readers_and_writers(open_with: Open) -> None:
    index = open_with(IndexType.PQ)
    store_segments(index, 0, *texts(150))
    main_rows: set[int] = set()

    def read() -> None:
        hits = find(index, "text 7", 10)
        sequences = [hit.sequence for hit in hits]
        assert len(hits) == len(set(sequences)) == 10
        assert (hits[0].cosine, hits[0].segment.text) == (1.0, "text 7")
        assert all(one.cosine >= other.cosine for one, other in itertools.pairwise(hits))
        main_rows.add(state(index).main_rows)

    with running(2, read) as failures:
        for turn in range(1, 60):
            media = turn % 7 + 1
            store_segments(index, media, *texts(40, 1000 + 40 * turn), replace=True)
            assert find(index, f"text {1000 + 40 * turn + 5}", 1)[0].cosine == 1.0
        assert settle(index).type is IndexType.PQ
    assert failures == []
    assert len(main_rows) > 1
    assert index.verify() == []


def test_a_build_that_fails_leaves_exact_searches(
    open_with: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patched:
        patched.setattr(main_part_build, "build", fail)
        index = open_with(IndexType.PQ)
        store_segments(index, 1, *texts(200))
        assert settle(index).type is IndexType.FLAT
        store_segments(index, 1, *texts(1, 200))
        settle(index)
    assert caplog.text.count("could not be built; searches go on without it") == 1
    assert "out of luck" in caplog.text
    assert answers(index, exact=False) == answers(index, exact=True)
    # With a tenth more rows it is tried again.
    store_segments(index, 2, *texts(30, 300))
    assert settle(index).type is IndexType.PQ


def test_closing_gives_up_a_build(open_with: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    seen: list[IndexState] = []

    def forever(_plan: object, _snapshot: object, *rest: object) -> None:
        progress = rest[-1]
        while True:
            progress(0.25)  # type: ignore[operator]
            begun.set()

    monkeypatch.setattr(main_part_build, "build", forever)
    index = open_with(IndexType.HNSW)
    store_segments(index, 1, *texts(150))
    assert begun.wait(10)
    seen.append(state(index))
    assert not index.wait_for_builds(0)
    store_segments(index, 1, *texts(10, 150))
    assert len(find(index)) == 160
    index.close()
    assert (seen[0].building, seen[0].build_progress, seen[0].type) == (True, 0.25, IndexType.FLAT)
    assert not any(thread.name == "main-part" for thread in threading.enumerate())


def kept(folder: Path) -> Path:
    return main_part_files.path_of(folder, TRANSCRIPT)


@pytest.mark.parametrize("kind", [IndexType.HNSW, IndexType.IVF, IndexType.RABITQ, IndexType.PQ])
def test_what_was_built_is_kept(
    open_with: Open, kind: IndexType, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = open_with(kind)
    store_segments(index, 1, *texts(300))
    settle(index)
    before = answers(index, exact=False)
    store_segments(index, 2, *texts(5, 300))
    index.close()
    whole = faiss.read_index(str(kept(index.folder)))
    assert whole.ntotal == 300
    assert faiss.vector_to_array(whole.id_map).tolist() == list(range(1, 301))

    def refuse(*_: object) -> None:
        raise AssertionError("nothing should be built")

    monkeypatch.setattr(main_part_build, "build", refuse)
    again = open_with(kind)
    # At once, before anything could be built.
    assert (state(again).type, state(again).main_rows) == (kind, 300)
    again.delete_media(2)
    assert answers(again, exact=False) == before
    assert settle(again).recall_at_10 is not None


def test_a_part_that_was_quickly_built_is_not_kept(
    open_with: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_part_builds, "_WORTH_KEEPING_S", 1000.0)
    index = open_with(IndexType.PQ)
    store_segments(index, 1, *texts(300))
    assert settle(index).type is IndexType.PQ
    assert not kept(index.folder).exists()


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "empty", "another type's"])
def test_a_damaged_file_is_built_again(
    open_with: Open, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    index = open_with(IndexType.PQ)
    store_segments(index, 1, *texts(300))
    settle(index)
    expected = answers(index, exact=False)
    index.close()
    path = kept(index.folder)
    content = path.read_bytes()
    match damage:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "flipped":
            flip(path, len(content) // 3)
        case "empty":
            path.write_bytes(b"")
        case "another type's":
            path.write_bytes((index.folder / "transcript_index.faiss").read_bytes())
    again = open_with(IndexType.PQ)
    assert len(find(again, "text 5")) == 300
    assert settle(again).type is IndexType.PQ
    assert answers(again, exact=False) == expected
    assert again.stats().rebuilt == {}
    again.close()
    assert path.read_bytes() == content
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == (damage != "missing")
    assert all("built again in the background" in line for line in told)


def test_a_kept_part_of_a_newer_or_another_store_is_not_used(
    open_with: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = open_with(IndexType.PQ)
    store_segments(index, 1, *texts(150))
    settle(index)
    index.close()
    older = {path.name: path.read_bytes() for path in index.folder.iterdir()}
    again = open_with(IndexType.PQ)
    store_segments(again, 2, *texts(100, 500))
    settle(again)
    again.close()
    newer = kept(index.folder).read_bytes()
    for path in index.folder.iterdir():
        path.unlink()
    for name, content in older.items():
        (index.folder / name).write_bytes(content)
    kept(index.folder).write_bytes(newer)
    third = open_with(IndexType.PQ)
    assert settle(third).main_rows == 150
    assert "the store only commit" in caplog.text
    third.close()
    other = tmp_path / "other"
    with SegmentIndex.open(other, MODEL) as alien:
        store_segments(alien, 1, *texts(300))
    kept(other).write_bytes(newer)
    with SegmentIndex.open(other, MODEL, policy=IndexPolicy({TRANSCRIPT: IndexType.PQ}, SMALL)):
        assert "belongs to another store" in caplog.text


@pytest.mark.parametrize("call", ["write", "sync", "replace"])
def test_a_full_disk_costs_the_next_start_time_only(
    folder: Path, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    SegmentIndex.open(folder, MODEL).close()
    disk = FaultyDisk(call, errno.ENOSPC)
    policy = IndexPolicy({TRANSCRIPT: IndexType.RABITQ}, SMALL)
    with SegmentIndex.open(folder, MODEL, disk=disk, policy=policy) as index:
        store_segments(index, 1, *texts(200))
        assert settle(index).type is IndexType.RABITQ
        assert "can't be kept for the next start" in caplog.text
    assert not list(folder.glob("*main*"))


def test_a_backup_has_the_main_part_of_its_time(
    open_with: Open, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = open_with(IndexType.PQ)
    store_segments(index, 1, *texts(300))
    settle(index)
    back_up(index.folder, target)
    expected = answers(index, exact=False)
    assert verify_folder(index.folder).problems == verify_folder(target).problems == []
    store_segments(index, 2, *texts(200, 300))
    assert settle(index).main_rows == 500
    index.close()
    place = restore(target, index.folder, force=True).kept
    assert place is not None
    assert kept(place).exists()
    monkeypatch.setattr(main_part_build, "build", None)
    again = open_with(IndexType.PQ)
    assert state(again).main_rows == 300
    assert answers(again, exact=False) == expected


def test_a_restored_index_does_not_meet_the_main_part_of_the_old_one(
    open_with: Open, target: Path
) -> None:
    index = open_with(IndexType.PQ)
    store_segments(index, 1, *texts(10))
    back_up(index.folder, target)
    store_segments(index, 2, *texts(200, 300))
    settle(index)
    index.close()
    assert kept(index.folder).exists()
    restore(target, index.folder, force=True)
    assert not kept(index.folder).exists()


def test_a_failed_commit_does_not_show_through_a_swap(open_with: Open) -> None:
    index = open_with(IndexType.PQ)
    store_segments(index, 1, *texts(200))
    settle(index)
    published = index._published.current
    index._adopt(TRANSCRIPT, None, MODEL.fingerprint)
    dropped = index._published.current
    assert (dropped.commit_id, dropped.last_sequence) == (
        published.commit_id,
        published.last_sequence,
    )
    before, after = published.snapshots[TRANSCRIPT], dropped.snapshots[TRANSCRIPT]
    assert after == replace(before, main=None)
    assert index._collections[TRANSCRIPT].snapshot.main is None


def test_vectors_can_come_with_any_type(open_with: Open) -> None:
    index = open_with(IndexType.HNSW)
    same = random_units(1)
    segments = tuple(segment(i, "music") for i in range(150))
    index.apply(
        [
            Upsert(
                TRANSCRIPT,
                1,
                segments,
                vectors=np.repeat(same, 150, axis=0),
                vector_positions=tuple(range(150)),
            )
        ]
    )
    assert settle(index).type is IndexType.HNSW
    hits = index.search([Search(TRANSCRIPT, 200)], same)[0]
    assert [hit.sequence for hit in hits] == list(range(1, 151))
