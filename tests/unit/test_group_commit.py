import threading
from collections.abc import Sequence
from concurrent.futures import Future, wait

import pytest
from storage_samples import DIMENSION, FRAME, TRANSCRIPT, find, segment, stored, upsert_of

from deployments.core.errors import (
    InvalidInput,
    NotReady,
    Overloaded,
    ServiceError,
    StoreUnwritable,
)
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import DeleteMedia, Segment, Upsert, UpsertResult
from deployments.core.storage import group_commit as group_commit_module
from deployments.core.storage.group_commit import GroupCommit, Operation


class HeldIndex:
    """Applies nothing until let go, and then says how many segments each operation has."""

    def __init__(self) -> None:
        self.groups: list[list[Operation]] = []
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.failure: BaseException | None = None
        self.due = False
        self.checkpoints = 0

    def apply(self, operations: Sequence[Operation]) -> list[UpsertResult | int | ServiceError]:
        self.entered.set()
        self.let_go.wait(10)
        self.groups.append(list(operations))
        if self.failure is not None:
            raise self.failure
        return [
            UpsertResult(stored=len(each.segments)) if isinstance(each, Upsert) else 0
            for each in operations
        ]

    def checkpoint_due(self) -> bool:
        return self.due

    def checkpoint(self) -> None:
        self.checkpoints += 1
        if self.failure is not None:
            raise self.failure


def bare(item: int, segments: int = 1) -> Upsert:
    return Upsert(TRANSCRIPT, item, tuple(Segment(i, "x") for i in range(segments)))


def hold(commits: GroupCommit, index: HeldIndex) -> "Future[UpsertResult | int]":
    """Keep the writer busy with a first operation, so that what follows has to wait."""
    first = commits.submit(bare(0))
    assert index.entered.wait(5)
    return first


def test_a_write_is_durable_and_searchable_when_its_future_is_done(index: SegmentIndex) -> None:
    with GroupCommit(index) as commits:
        result = commits.submit(upsert_of(1, segment("a"), segment("b"))).result()
        assert result == UpsertResult(stored=2, changed=2)
        assert find(index, "text of b", 1)[0].segment == segment("b")
        assert commits.submit(DeleteMedia(1)).result() == 2
        assert stored(index) == {}


def test_each_operation_gets_its_own_outcome(index: SegmentIndex) -> None:
    with GroupCommit(index) as commits, index._writing:
        futures = [
            commits.submit(operation)
            for operation in (
                upsert_of(1, segment("a")),
                upsert_of(2, segment("a"), segment("a")),
                Upsert(FRAME, 3, (segment("a"),)),
                upsert_of(1, segment("a", "new")),
                DeleteMedia(1),
            )
        ]
    assert futures[0].result() == UpsertResult(stored=1, changed=1)
    assert isinstance(futures[1].exception(), InvalidInput)
    assert futures[2].result() == UpsertResult(missing=(0,))
    assert futures[3].result() == UpsertResult(stored=1, changed=1)
    assert futures[4].result() == 1


def test_what_waits_together_is_committed_together(index: SegmentIndex) -> None:
    with GroupCommit(index) as commits:
        with index._writing:
            futures = [commits.submit(upsert_of(item, segment("a"))) for item in range(50)]
        wait(futures)
    assert len(stored(index)) == 50
    with index._store.reading() as reader:
        assert reader.commit_id() <= 2  # the first may have been taken alone


def test_operations_keep_their_order_and_groups_their_limits() -> None:
    index = HeldIndex()
    with GroupCommit(index, max_group_operations=3, max_group_segments=10) as commits:
        hold(commits, index)
        sizes = [1, 1, 1, 1, 5, 5, 1, 30, 2]
        futures = [commits.submit(bare(i, size)) for i, size in enumerate(sizes, 1)]
        index.let_go.set()
        assert [future.result() for future in futures] == [
            UpsertResult(stored=size) for size in sizes
        ]
    items = [[operation.media_item_id for operation in group] for group in index.groups]
    assert items == [[0], [1, 2, 3], [4, 5], [6, 7], [8], [9]]


def test_too_many_operations_are_refused() -> None:
    index = HeldIndex()
    with GroupCommit(index, max_waiting_operations=2) as commits:
        hold(commits, index)
        futures = [commits.submit(bare(1)), commits.submit(DeleteMedia(2))]
        with pytest.raises(Overloaded, match="2 writes with 2 segments are waiting"):
            commits.submit(bare(3))
        index.let_go.set()
        wait(futures)
        assert commits.submit(bare(4)).result() == UpsertResult(stored=1)
    assert [each.media_item_id for group in index.groups for each in group] == [0, 1, 2, 4]


def test_too_many_segments_are_refused_but_one_large_operation_is_not() -> None:
    index = HeldIndex()
    with GroupCommit(index, max_waiting_segments=10) as commits:
        hold(commits, index)
        large = commits.submit(bare(1, 500))
        with pytest.raises(Overloaded, match="1 writes with 500 segments"):
            commits.submit(bare(2))
        index.let_go.set()
        assert large.result() == UpsertResult(stored=500)
        assert commits.submit(bare(3, 10)).result() == UpsertResult(stored=10)


def test_a_cancelled_operation_is_not_applied() -> None:
    index = HeldIndex()
    with GroupCommit(index) as commits:
        hold(commits, index)
        kept, cancelled = commits.submit(bare(1)), commits.submit(bare(2))
        assert cancelled.cancel()
        index.let_go.set()
        assert kept.result() == UpsertResult(stored=1)
    assert [each.media_item_id for group in index.groups for each in group] == [0, 1]


@pytest.mark.parametrize("failure", [StoreUnwritable("disk"), RuntimeError("defect")])
def test_a_failure_reaches_all_of_the_group_and_the_writer_goes_on(failure: Exception) -> None:
    index = HeldIndex()
    index.failure = failure
    with GroupCommit(index) as commits:
        first = hold(commits, index)
        futures = [first, commits.submit(bare(1)), commits.submit(bare(2))]
        index.let_go.set()
        assert [future.exception() for future in futures] == [failure] * 3
        index.failure = None
        assert commits.submit(bare(3)).result() == UpsertResult(stored=1)


def test_closing_applies_what_waits_and_takes_nothing_more() -> None:
    index = HeldIndex()
    commits = GroupCommit(index)
    hold(commits, index)
    futures = [commits.submit(bare(item)) for item in range(1, 6)]
    closer = threading.Thread(target=commits.close)
    closer.start()
    assert commits._closing.wait(5)
    with pytest.raises(NotReady, match="closing"):
        commits.submit(bare(9))
    assert closer.is_alive()
    index.let_go.set()
    closer.join()
    assert [future.result(0) for future in futures] == [UpsertResult(stored=1)] * 5
    commits.close()


def until(condition: object) -> None:
    assert callable(condition)
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("didn't happen within 5 s")


def test_checkpoints_are_written_when_due_and_never_hold_writes_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_commit_module, "_CHECKPOINT_POLL_S", 0.001)
    monkeypatch.setattr(group_commit_module, "_CHECKPOINT_RETRY_S", 0.001)
    index = HeldIndex()
    index.let_go.set()
    with GroupCommit(index) as commits:
        assert commits.submit(bare(1)).result() == UpsertResult(stored=1)
        assert index.checkpoints == 0
        index.failure = StoreUnwritable("no space for it")
        index.due = True
        until(lambda: commits.checkpoint_error == "no space for it")
        index.failure = None
        until(lambda: commits.checkpoint_error is None)
        assert index.checkpoints >= 2


def test_a_due_checkpoint_of_a_real_index(
    index: SegmentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit_module, "_CHECKPOINT_POLL_S", 0.001)
    monkeypatch.setattr("deployments.core.index.checkpoint_schedule._MANY_ROWS", 3)
    path = index.folder / "transcript_index.faiss"
    with GroupCommit(index) as commits:
        commits.submit(upsert_of(1, segment("a"), segment("b"))).result()
        assert not path.exists()
        commits.submit(upsert_of(1, segment("c"))).result()
        until(lambda: path.exists() and not index.checkpoint_due())
    assert index._checkpoints.schedule.pending() == {}
    assert path.stat().st_size > 3 * 4 * DIMENSION


def test_many_threads_submit(index: SegmentIndex) -> None:
    results: list[object] = []
    with GroupCommit(index) as commits:

        def submit(first: int) -> None:
            futures = [
                commits.submit(upsert_of(item, segment("a"))) for item in range(first, first + 25)
            ]
            results.extend(future.result() for future in futures)

        threads = [threading.Thread(target=submit, args=(25 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [UpsertResult(stored=1, changed=1)] * 100
    assert {item for item, _ in stored(index)} == set(range(100))
