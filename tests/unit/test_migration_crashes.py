"""A migration that is killed, or whose disk fails, at any moment."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from failing_connection import FailingConnection
from migration_samples import NEWS, BothModels, contents, migration_of, phase, work_off, write
from storage_samples import FRAME, MODEL, MODELS, segment, upsert_of

from deployments.core.errors import StoreUnwritable
from deployments.core.index import second_vectors
from deployments.core.index.migration import Migration
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.storage.migration_record import Phase


class Kills:
    """Copies an index' folder as a kill would leave it: before each statement, where it differs."""

    def __init__(self, index: SegmentIndex, folder: Path) -> None:
        self._index = index
        self._folder = folder
        self._seen: set[bytes] = set()
        self.copies: list[Path] = []

    def copy(self, _: str = "") -> None:
        files = [self._index.folder / name for name in ("store.sqlite3", "store.sqlite3-wal")]
        state = hashlib.sha256(b"".join(path.read_bytes() for path in files)).digest()
        if state not in self._seen:
            self._seen.add(state)
            self.copies.append(self._folder / f"killed-{len(self.copies)}")
            shutil.copytree(self._index.folder, self.copies[-1])

    @contextmanager
    def meanwhile(self) -> Iterator[list[Path]]:
        """What a kill within the block may leave."""
        connection, before = self._index._store._writer, len(self.copies)
        assert connection is not None
        connection.execute("PRAGMA cache_size=4")  # so that pages reach the log before the commit
        connection.set_trace_callback(self.copy)
        found: list[Path] = []
        try:
            yield found
        finally:
            connection.set_trace_callback(None)
            self.copy()
            found += self.copies[before:]


def at_the_last_moment(index: SegmentIndex, act: Callable[[], None]) -> None:
    """Do something before the next exchange."""
    exchange = index.exchange

    def late(work):  # type: ignore[no-untyped-def]
        index.exchange = exchange  # type: ignore[method-assign]
        act()
        exchange(work)

    index.exchange = late  # type: ignore[method-assign]


def test_a_kill_at_any_statement_leaves_what_was_written_and_a_migration_that_goes_on(
    filled: SegmentIndex, memory_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_vectors, "BATCH_ROWS", 2)
    models = BothModels()
    migration = migration_of(filled, models)
    kills = Kills(filled, memory_folder)

    def switch_with_a_late_write() -> None:
        text = "to be encoded within the switch"
        at_the_last_moment(filled, lambda: write(filled, upsert_of(70, segment(1, text))))
        migration.switch()

    acts: list[Callable[[], object]] = [
        lambda: migration.start(NEWS, switch_when_ready=False),
        migration.step,
        lambda: write(filled, upsert_of(1, segment(1, "replaced"), segment(5))),
        migration.step,
        lambda: filled.delete_media(2),
        lambda: work_off(migration),
        lambda: write(filled, upsert_of(1, segment(5), segment(6), replace=True)),
        switch_with_a_late_write,
        lambda: write(filled, upsert_of("two", segment(1, "another chart"), kind=FRAME)),
        lambda: filled.delete_media(70),
        migration.step,
        lambda: write(filled, upsert_of(71, segment(1, "after the switch"))),
        migration.roll_back,
        lambda: write(filled, upsert_of(71, segment(1, "after the rollback"))),
        migration.switch,
        migration.end,
    ]
    killed_in: dict[Phase | None, int] = {}
    for act in acts:
        was, before = phase(migration), contents(filled)
        with kills.meanwhile() as copies:
            act()
        after = contents(filled)
        phases = [was, phase(migration)]
        if was is Phase.RUNNING and phases[1] is Phase.READY:
            phases.append(Phase.RUNNING)
        for copy in copies:
            left = look_at(copy, models, [before, after])
            assert left in phases
            killed_in[left] = killed_in.get(left, 0) + 1
    assert filled.models == NEWS
    assert set(killed_in) == {None, Phase.RUNNING, Phase.READY, Phase.SWITCHED}
    assert len(kills.copies) > 40


def look_at(killed: Path, models: BothModels, expected: list[object]) -> Phase | None:
    """Open what a kill left, go on with it to its end, and return how far it was."""
    with SegmentIndex.open(killed, MODEL, accept_former=True) as index:
        migration = migration_of(index, models)
        left, stored = phase(migration), contents(index)
        assert stored in expected
        assert index.verify() == []
        work_off(migration)
        for act in {
            Phase.RUNNING: ["switch", "roll_back"],
            Phase.READY: ["switch", "roll_back"],
            Phase.SWITCHED: ["roll_back", "switch"],
        }.get(left, []):  # type: ignore[call-overload]
            getattr(migration, act)()
            assert index.models == (NEWS if act == "switch" else MODELS)
            assert contents(index) == stored
        assert index.verify() == []
    shutil.rmtree(killed)
    return left  # type: ignore[no-any-return]


@pytest.fixture
def failing_index(
    failing: type[FailingConnection], open_index: Callable[[], SegmentIndex]
) -> SegmentIndex:
    """An index with some segments, whose connections can fail."""
    assert not failing.fail_before
    index = open_index()
    write(index, upsert_of(1, segment(1), segment(2)))
    write(index, upsert_of(1, segment(1), kind=FRAME))
    return index


FAULTS = pytest.mark.parametrize(
    ("statement", "is_made"),
    [
        ("BEGIN IMMEDIATE", False),
        ("ALTER TABLE standby_vectors RENAME TO vectors", False),
        ("DROP TABLE exchanged_marks", False),
        ("COMMIT", False),
        ("COMMIT", True),
    ],
)


@FAULTS
@pytest.mark.parametrize("act", ["switch", "roll_back"])
def test_an_exchange_that_the_disk_refuses_is_made_whole_or_not_at_all(
    failing: type[FailingConnection],
    failing_index: SegmentIndex,
    statement: str,
    is_made: bool,
    act: str,
) -> None:
    models = BothModels()
    migration = migration_of(failing_index, models)
    migration.start(NEWS, switch_when_ready=act == "roll_back")
    work_off(migration)
    before, old = contents(failing_index), failing_index.models
    at_the_last_moment(
        failing_index, lambda: fail_after_a_write(failing, failing_index, statement, is_made)
    )
    with pytest.raises(StoreUnwritable):
        getattr(migration, act)()
    failing.fail_before = failing.fail_after = ()
    failing_index.apply([])  # where memory is brought together with the store again
    expected = {**before, FRAME: {**before[FRAME], (90, 1): "at the last moment"}}
    assert (failing_index.models != old) == is_made
    assert contents(failing_index) == expected
    assert failing_index.verify() == []
    write(failing_index, upsert_of(91, segment(1, "afterwards"), kind=FRAME))
    expected[FRAME][91, 1] = "afterwards"
    other = "roll_back" if act == "switch" else "switch"
    for each in [other, act] if is_made else [act, other]:
        getattr(migration, each)()
        assert contents(failing_index) == expected
        assert failing_index.models == (NEWS if each == "switch" else MODELS)
    assert failing_index.verify() == []
    failing_index.close()
    with SegmentIndex.open(failing_index.folder, MODEL, accept_former=True) as again:
        assert contents(again) == expected


def fail_after_a_write(
    failing: type[FailingConnection], index: SegmentIndex, statement: str, is_made: bool
) -> None:
    write(index, upsert_of(90, segment(1, "at the last moment"), kind=FRAME))
    if is_made:
        failing.fail_after = (statement,)
    else:
        failing.fail_before = (statement,)


def test_a_step_that_the_disk_refuses_is_done_again(
    failing: type[FailingConnection], failing_index: SegmentIndex
) -> None:
    models = BothModels()
    migration: Migration = migration_of(failing_index, models)
    migration.start(NEWS)
    for _ in range(2):
        failing.fail_before = ("COMMIT",)
        with pytest.raises(StoreUnwritable):
            migration.step()
        failing.fail_before = ()
        assert phase(migration) is Phase.RUNNING
    work_off(migration)
    assert (failing_index.models, phase(migration)) == (NEWS, Phase.SWITCHED)
    assert failing_index.verify() == []
