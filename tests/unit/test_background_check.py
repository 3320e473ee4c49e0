import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from folder_samples import execute
from page_damage import fill_pages, flip_in_page, flip_text, leaves_of, zero_page
from storage_samples import FRAME, MODEL, find, segment, store_segments

from deployments.core.damage import Damage, DamageRecord
from deployments.core.errors import NotReady, StoreDamaged
from deployments.core.index.background_check import BackgroundCheck
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.pace import Pace, Stopped
from deployments.core.storage import store_inspection

AT_ONCE = Pace(threading.Event(), share=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "index"
    fill_pages(folder)
    return folder


@pytest.fixture
def store(source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of a copy to damage, too large for a check at the start."""
    monkeypatch.setattr(store_inspection, "_CHECKED_BYTES", 0)
    shutil.copytree(source, folder)
    return folder / "store.sqlite3"


def checked(store: Path) -> Damage | None:
    with SegmentIndex.open(store.parent, MODEL) as index:
        assert index.damage.current is None
        index.check(AT_ONCE)
        found = index.stats().damage
        if found is not None:
            with pytest.raises(StoreDamaged, match="Writes are refused"):
                store_segments(index, 1, segment("new"))
        else:
            store_segments(index, 1, segment("new"))
        return found


def test_a_whole_store_passes(store: Path) -> None:
    assert checked(store) is None


def test_a_flipped_text_is_found(store: Path) -> None:
    flip_text(store, b"Text 5 7 ")
    damage = checked(store)
    assert damage is not None
    assert damage.rows == 1
    assert "Row 208 (transcript, media item 5, segment 7) is not what was written" in damage.reason
    assert "embeddings-service restore" in damage.reason


def test_a_flipped_vector_is_found_though_searches_are_right(store: Path) -> None:
    flip_in_page(store, leaves_of(store, "vectors")[-1], -3)
    damage = checked(store)
    assert damage is not None
    assert damage.rows == 1


@pytest.mark.parametrize("tree", ["segments", "vectors"])
def test_a_page_that_can_not_be_read_is_found_with_all_its_rows(store: Path, tree: str) -> None:
    zero_page(store, leaves_of(store, tree)[2])
    damage = checked(store)
    assert damage is not None
    assert damage.rows > 20
    assert "malformed" in damage.reason
    assert "Row " in damage.reason
    assert "more." in damage.reason


def test_a_flipped_name_in_an_index_is_found(store: Path) -> None:
    page = leaves_of(store, "segments_by_name")[0]
    flip_in_page(store, page, -3)
    damage = checked(store)
    assert damage is not None
    assert "segments_by_name" in damage.reason


def test_a_lost_row_is_found(store: Path) -> None:
    with SegmentIndex.open(store.parent, MODEL) as index:
        execute(store.parent, "DELETE FROM vectors WHERE seq=20")
        index.check(AT_ONCE)
        damage = index.damage.current
        assert damage is not None
        assert damage.rows == 1
        assert "Row 20 or its vector is not in the store" in damage.reason


def test_writes_beside_a_check_are_no_damage(store: Path) -> None:
    with SegmentIndex.open(store.parent, MODEL) as index:
        paces = 0

        def write_between() -> None:
            nonlocal paces
            paces += 1
            store_segments(index, 1, segment(0, f"changed {paces}"), segment("new", f"{paces}"))
            if paces == 3:
                index.delete_media(7)

        pace = Pace(threading.Event(), share=1)
        pace.__class__ = type("Writing", (Pace,), {"__call__": lambda self: write_between()})
        index.check(pace)
        assert paces > 5
        assert index.damage.current is None
        assert index.verify() == []


def test_a_check_can_be_stopped(store: Path) -> None:
    stop = threading.Event()
    with SegmentIndex.open(store.parent, MODEL) as index:
        stop.set()
        with pytest.raises(Stopped):
            index.check(Pace(stop, share=0.001))
        assert index.damage.current is None
        assert find(index, kind=FRAME)


def test_a_pace_rests_as_long_as_its_share_asks() -> None:
    rests: list[float] = []

    class Recording(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            rests.append(timeout)
            return False

    now = [0.0]
    pace = Pace(Recording(), share=0.1, clock=lambda: now[0])
    pace()
    assert rests == []
    now[0] += 0.01
    pace()
    pace()
    assert rests == [pytest.approx(0.09)]


def test_statements_are_stopped_too() -> None:
    stop = threading.Event()
    pace = Pace(stop, share=1)
    with closing(sqlite3.connect(":memory:")) as connection:
        endless = (
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n) SELECT max(x) FROM n"
        )
        threading.Timer(0.05, stop.set).start()
        with pytest.raises(Stopped), pace.of(connection):
            connection.execute(endless).fetchone()
        stop.clear()
        # Its other errors are its own, and later statements are not stopped.
        with pytest.raises(sqlite3.OperationalError, match="nonsense"), pace.of(connection):
            connection.execute("SELECT nonsense")
        assert connection.execute("SELECT 1").fetchone() == (1,)


class Checks:
    """An index whose checks do what the test says, one after the other."""

    def __init__(self, *outcomes: Callable[[Pace], None]) -> None:
        self._outcomes = list(outcomes)
        self.done = threading.Semaphore(0)
        self.paces: list[Pace] = []

    def check(self, pace: Pace) -> None:
        outcome = self._outcomes.pop(0)
        self.paces.append(pace)
        self.done.release()
        outcome(pace)


def fail(error: Exception) -> Callable[[Pace], None]:
    def check(_: Pace) -> None:
        raise error

    return check


def until_stopped(pace: Pace) -> None:
    while True:
        pace()


def test_checks_go_on_after_one_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    index = Checks(
        fail(NotReady("catching up")), fail(ValueError("a bug")), lambda _: None, until_stopped
    )
    check = BackgroundCheck(index, interval_s=0.001)
    for _ in range(4):
        assert index.done.acquire(timeout=30)
    check.close()
    assert "could not be checked: catching up" in caplog.text
    assert "failed unexpectedly" in caplog.text
    assert len({id(pace) for pace in index.paces}) == 4


def test_a_check_that_waits_for_its_next_turn_is_ended() -> None:
    index = Checks(lambda _: None)
    check = BackgroundCheck(index, interval_s=86_400)
    assert index.done.acquire(timeout=30)
    check.close()


def test_a_record_keeps_the_first_error_until_a_check_says_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = DamageRecord()
    record.refuse_writes()
    record.note(StoreDamaged("first"))
    record.note(StoreDamaged("second"))
    assert record.current == Damage("first")
    record.found(["a.", "b.", "c.", "d.", "e."], 2)
    assert record.current is not None
    assert record.current.rows == 2
    assert record.current.reason.startswith("a. b. c. And 2 more. ")
    with pytest.raises(StoreDamaged, match=r"Writes are refused, .* a\. b\. c\."):
        record.refuse_writes()
    assert len(caplog.records) == 2


def test_a_statement_that_does_not_pause_is_interrupted() -> None:
    pace = Pace(threading.Event(), share=1)
    entered = threading.Event()
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:

        def hold() -> int:
            # As one long instruction of SQLite's, in which no progress is reported.
            entered.set()
            stopped.wait(30)
            return 1

        stopped = threading.Event()
        connection.create_function("hold", 0, hold)

        def stop() -> None:
            assert entered.wait(30)
            pace.stop()
            stopped.set()

        thread = threading.Thread(target=stop)
        thread.start()
        with pytest.raises(Stopped), pace.of(connection):
            connection.execute("SELECT hold() UNION ALL SELECT 2").fetchall()
        thread.join()
    pace.stop()
