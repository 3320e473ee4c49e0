"""Readers and a writer at the same time: every answer is of one moment, texts included."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from storage_samples import (
    FRAME,
    TRANSCRIPT,
    find,
    segment,
    store_segments,
    stored,
    upsert_of,
    vector_of,
    vectors_of,
)

from deployments.core.errors import NotReady
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import Search, Upsert, UpsertResult

Open = Callable[[], SegmentIndex]


@contextmanager
def running(count: int, work: Callable[[], None]) -> Iterator[list[BaseException]]:
    """Repeat `work` in threads while the block runs; collects what it raises."""
    ended = threading.Event()
    failures: list[BaseException] = []

    def repeat() -> None:
        while not ended.is_set() and not failures:
            try:
                work()
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=repeat) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_no_reader_sees_half_of_a_replace(index: SegmentIndex) -> None:
    # Each version has other ids, texts, vectors and a different number of segments, in two types.
    def write(version: int) -> None:
        index.apply(
            [
                upsert_of(
                    1,
                    *(segment(f"{version}-{i}", f"{version} {i}", v=version) for i in range(count)),
                    replace=True,
                    kind=kind,
                )
                for kind, count in ((TRANSCRIPT, 5 + version % 3), (FRAME, 4))
            ]
        )

    write(0)
    seen: set[int] = set()
    queries = vectors_of(["some", "query"])

    def read() -> None:
        transcript, frame = index.search([Search(TRANSCRIPT, 50), Search(FRAME, 50)], queries)
        versions = {hit.segment.metadata["v"] for hit in [*transcript, *frame]}
        assert len(versions) == 1, versions
        (version,) = versions
        assert len(transcript) == 5 + version % 3
        assert len(frame) == 4
        for hit in transcript:
            assert hit.segment.text.startswith(f"{version} ")
            exact = vector_of(hit.segment.text).astype(float) @ queries[0].astype(float)
            assert hit.cosine == pytest.approx(exact, abs=1e-6)
        seen.add(version)

    with running(2, read) as failures:
        for version in range(1, 150):
            write(version)
    assert failures == []
    assert len(seen) > 20


def test_a_write_is_seen_by_every_search_that_starts_after_it(index: SegmentIndex) -> None:
    with running(2, lambda: find(index) and None) as failures:
        for version in range(100):
            store_segments(index, 1, segment("a", f"text {version}"))
            (hit,) = find(index, f"text {version}")
            assert (hit.cosine, hit.segment.text) == (1.0, f"text {version}")
    assert failures == []


def test_a_search_waits_for_a_commit_to_be_published(
    index: SegmentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_segments(index, 1, segment("a", "old"))
    durable, publish = threading.Event(), threading.Event()
    take_in = index._take_in

    def slowly(*arguments: object) -> None:
        durable.set()
        publish.wait(10)
        take_in(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(index, "_take_in", slowly)
    writer = threading.Thread(target=store_segments, args=(index, 1, segment("a", "new")))
    writer.start()
    durable.wait(10)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(find(index)[0].segment.text))
    reader.start()
    reader.join(0.05)
    assert reader.is_alive()
    publish.set()
    reader.join()
    writer.join()
    assert found == ["new"]


def test_a_search_gives_up_if_nothing_is_published(
    index: SegmentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.core.search.one_commit._PUBLISH_TIMEOUT_S", 0.01)
    with index._store.transaction() as writer:
        writer.changed = True
    with pytest.raises(NotReady, match="catching up"):
        find(index)


def test_checkpoints_while_writing_hold_one_moment(open_index: Open) -> None:
    index = open_index()
    with running(1, lambda: index.checkpoint(force=True)) as failures:
        for version in range(150):
            segments = (segment(f"{version}-{i}", f"{version} {i}") for i in range(10))
            store_segments(index, version % 3, *segments, replace=True)
    assert failures == []
    before = stored(index)
    index.close()
    again = open_index()
    assert again.stats().rebuilt == {}
    assert stored(again) == before
    assert len(before) == 30
    assert again.verify() == []


def test_writers_in_many_threads_are_all_kept(index: SegmentIndex) -> None:
    turn = iter(range(10**9))

    def write() -> None:
        item = next(turn)
        assert store_segments(index, item, segment("a"), segment("b")).stored == 2

    with running(4, write) as failures:
        time.sleep(0.3)
    assert failures == []
    items = {item for item, _ in stored(index)}
    assert items == set(range(next(turn)))
    assert index.verify() == []


def test_closing_while_searches_and_checkpoints_run(open_index: Open) -> None:
    index = open_index()
    store_segments(index, 1, *(segment(i) for i in range(200)))
    searched = threading.Event()

    def use() -> None:
        try:
            assert len(find(index)) == 200
            searched.set()
            index.checkpoint(force=True)
        except NotReady:
            assert index._closed

    with running(4, use) as failures:
        searched.wait(10)
        index.close()
    assert failures == []
    assert len(stored(open_index())) == 200


def test_verify_while_writing(index: SegmentIndex) -> None:
    def verify() -> None:
        assert index.verify() == []

    with running(2, verify) as failures:
        for version in range(60):
            store_segments(index, 1, *(segment(i, f"{version} {i}") for i in range(5)))
    assert failures == []


def test_sequences_of_results_never_go_back(index: SegmentIndex) -> None:
    request = Upsert(TRANSCRIPT, 1, (segment("a"),))
    assert index.apply([request]) == [UpsertResult(missing=(0,))]
    last = 0
    for version in range(20):
        store_segments(index, 1, segment("a", f"{version}"))
        (hit,) = find(index)
        assert hit.sequence > last
        assert index.stats().last_sequence == hit.sequence
        last = hit.sequence
