"""The moment at which the vectors of two models change places, while others write."""

from collections.abc import Callable, Sequence
from itertools import count

import pytest
from migration_samples import (
    NEW,
    NEWS,
    BothModels,
    contents,
    found,
    migration_of,
    phase,
    work_off,
    write,
)
from storage_samples import MODELS, TRANSCRIPT, segment, upsert_of

from deployments.core.encoding.batcher import Encoded
from deployments.core.encoding.text_encoder import TextKind
from deployments.core.errors import ModelNotFound, NotReady
from deployments.core.index import recovery, second_vectors
from deployments.core.index.migration import TOO_MANY_WRITES, Migration
from deployments.core.index.second_vectors import BATCH_ROWS, FEW_ROWS
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import ModelIdentity
from deployments.core.storage.migration_record import Phase

ACTS = pytest.mark.parametrize("act", ["switch", "roll_back"])
MEDIA = count(100)


class Writers(BothModels):
    """Encodes with both models; meanwhile others write."""

    def __init__(self, index: SegmentIndex) -> None:
        super().__init__()
        self.index = index
        self.share = 0.0
        """How many segments are written while one is encoded."""
        self.held_up = 0
        """How many texts were encoded while writes waited."""

    def __call__(self, model: ModelIdentity, texts: Sequence[str], kind: TextKind) -> Encoded:
        if self.index._writing.locked():
            self.held_up += len(texts)
        else:
            self.write(int(len(texts) * self.share))
        return super().__call__(model, texts, kind)

    def write(self, rows: int) -> None:
        media = next(MEDIA)
        write(self.index, upsert_of(media, *(segment(i, f"{media}, {i}") for i in range(rows))))


@pytest.fixture
def writers(filled: SegmentIndex) -> Writers:
    return Writers(filled)


@pytest.fixture
def migration(filled: SegmentIndex, writers: Writers) -> Migration:
    return migration_of(filled, writers)


@pytest.fixture
def read_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sequence numbers of the rows whose vectors are read."""
    read: list[int] = []
    add = recovery.add_from_store

    def noting(reader, kind, collection, sequences, dimension):  # type: ignore[no-untyped-def]
        read.extend(sequences.tolist())
        add(reader, kind, collection, sequences, dimension)

    monkeypatch.setattr(recovery, "add_from_store", noting)
    return read


def prepared(migration: Migration, act: str) -> Callable[[], None]:
    """The act, all that comes before it done."""
    migration.start(NEWS, switch_when_ready=act == "roll_back")
    work_off(migration)
    return getattr(migration, act)  # type: ignore[no-any-return]


def assert_done(index: SegmentIndex, migration: Migration, act: str) -> None:
    back = act == "roll_back"
    assert index.models == (MODELS if back else NEWS)
    assert phase(migration) is (Phase.READY if back else Phase.SWITCHED)
    assert contents(index).keys()
    assert index.verify() == []


@ACTS
def test_what_is_written_meanwhile_is_caught_up_with_outside_of_the_transaction(
    filled: SegmentIndex,
    migration: Migration,
    writers: Writers,
    act: str,
    monkeypatch: pytest.MonkeyPatch,
    read_rows: list[int],
) -> None:
    exchange = prepared(migration, act)
    up_to, rows = migration._second._collections.up_to, [2000]

    def slow(sequence: int) -> object:
        """While all the vectors are read, many segments come."""
        writers.write(rows.pop() if rows else 0)
        return up_to(sequence)

    monkeypatch.setattr(migration._second._collections, "up_to", slow)
    writers.share = 0.7
    read_rows.clear()
    exchange()
    assert_done(filled, migration, act)
    assert len(found(filled, TRANSCRIPT)) > 5000
    assert writers.held_up <= FEW_ROWS
    assert sorted(set(read_rows)) == sorted(read_rows)


@ACTS
def test_a_segment_that_came_at_the_last_moment_is_not_missed(
    filled: SegmentIndex,
    migration: Migration,
    writers: Writers,
    act: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    act_now = prepared(migration, act)
    exchange, rows = filled.exchange, [1, FEW_ROWS + 1]

    def late(work):  # type: ignore[no-untyped-def]
        writers.write(rows.pop())
        exchange(work)

    monkeypatch.setattr(filled, "exchange", late)
    before = len(found(filled, TRANSCRIPT))
    act_now()
    assert_done(filled, migration, act)
    assert len(found(filled, TRANSCRIPT)) == before + FEW_ROWS + 2
    assert writers.held_up == 1


def test_deleted_rows_that_were_read_are_not_found(
    filled: SegmentIndex, migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = prepared(migration, "switch")
    up_to = migration._second._collections.up_to

    def then_deleted(sequence: int) -> object:
        collections = up_to(sequence)
        filled.delete_media(1)
        write(filled, upsert_of(2, segment(3, "another text"), replace=True))
        return collections

    monkeypatch.setattr(migration._second._collections, "up_to", then_deleted)
    exchange()
    assert_done(filled, migration, "switch")
    assert found(filled, TRANSCRIPT) == {(2, 3): "another text"}


@ACTS
def test_when_there_never_are_few_writes_wait_for_a_batch(
    filled: SegmentIndex,
    migration: Migration,
    writers: Writers,
    act: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchange = prepared(migration, act)
    seconds = count(step=5)
    monkeypatch.setattr(second_vectors, "monotonic", lambda: next(seconds))
    writers.write(100)
    writers.share = 1.0
    exchange()
    assert_done(filled, migration, act)
    assert writers.held_up == 100


@ACTS
def test_writes_that_are_faster_than_the_encoders_are_told_to_wait(
    filled: SegmentIndex,
    migration: Migration,
    writers: Writers,
    act: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchange = prepared(migration, act)
    models, before = filled.models, phase(migration)
    monkeypatch.setattr(second_vectors, "PATIENCE_S", 0)
    writers.write(BATCH_ROWS)
    writers.share = 1.1
    with pytest.raises(NotReady, match=r"pause what writes, or give .* and try again"):
        exchange()
    assert (filled.models, phase(migration)) == (models, before)
    assert writers.held_up == 0
    assert filled.verify() == []
    writers.share = 0
    exchange()
    assert_done(filled, migration, act)


def test_a_switch_by_itself_is_tried_until_writes_are_slower(
    filled: SegmentIndex, migration: Migration, writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_vectors, "PATIENCE_S", 0)
    migration.start(NEWS)
    while phase(migration) is Phase.RUNNING:
        migration.step()
    up_to = migration._second._collections.up_to

    def meanwhile(sequence: int) -> object:
        writers.write(BATCH_ROWS + 1)
        return up_to(sequence)

    with monkeypatch.context() as patch:
        patch.setattr(migration._second._collections, "up_to", meanwhile)
        for _ in range(2):
            with pytest.raises(NotReady):
                work_off(migration)
            status = migration.status()
            assert status is not None
            assert status.record.phase is Phase.READY
            assert status.record.switch_when_ready
            assert status.record.reason == TOO_MANY_WRITES
    work_off(migration)
    status = migration.status()
    assert status is not None
    assert (status.record.phase, status.record.reason) == (Phase.SWITCHED, None)
    assert_done(filled, migration, "switch")


def test_a_switch_by_itself_that_fails_waits_for_someone(
    filled: SegmentIndex, migration: Migration, writers: Writers
) -> None:
    migration.start(NEWS)
    while phase(migration) is Phase.RUNNING:
        migration.step()
    writers.write(1)
    writers.failures = [ModelNotFound("gone")]
    with pytest.raises(ModelNotFound):
        migration.step()
    migration.fail("gone")
    assert phase(migration) is Phase.FAILED
    assert not migration.step()
    migration.start(NEWS)
    work_off(migration)
    assert_done(filled, migration, "switch")


def test_what_can_t_be_encoded_within_the_transaction_changes_nothing(
    filled: SegmentIndex, migration: Migration, writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    act_now = prepared(migration, "switch")
    exchange = filled.exchange

    def late(work):  # type: ignore[no-untyped-def]
        writers.write(1)
        writers.failures = [NotReady("restarting")]
        exchange(work)

    before = contents(filled)
    with monkeypatch.context() as patch:
        patch.setattr(filled, "exchange", late)
        with pytest.raises(NotReady, match="restarting"):
            act_now()
    assert (filled.models, phase(migration)) == (MODELS, Phase.READY)
    assert len(contents(filled)[TRANSCRIPT]) == len(before[TRANSCRIPT]) + 1
    act_now()
    assert_done(filled, migration, "switch")
    assert set(writers.stored_texts(NEW)) >= set(contents(filled)[TRANSCRIPT].values())


@ACTS
def test_to_and_fro_again_and_again(
    filled: SegmentIndex, migration: Migration, writers: Writers, act: str
) -> None:
    prepared(migration, act)
    writers.share = 0.5
    for _ in range(3):
        for each in (act, "switch" if act == "roll_back" else "roll_back"):
            rows = len(found(filled, TRANSCRIPT))
            writers.write(40)
            filled.delete_media(next(MEDIA) - 1)
            writers.write(3)
            getattr(migration, each)()
            assert_done(filled, migration, each)
            assert len(found(filled, TRANSCRIPT)) >= rows + 3
