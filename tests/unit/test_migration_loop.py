"""The thread that brings a migration forward."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from migration_samples import NEWS, BothModels, found, migration_of, write
from storage_samples import MODELS, TRANSCRIPT, segment, upsert_of

from deployments.core.encoding.batcher import Encoded
from deployments.core.errors import ModelNotFound, NotReady, Overloaded
from deployments.core.index import migration_loop
from deployments.core.index.migration import Migration
from deployments.core.index.migration_loop import MigrationLoop
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.storage.migration_record import Phase


@pytest.fixture
def models() -> BothModels:
    return BothModels()


@pytest.fixture
def migration(filled: SegmentIndex, models: BothModels) -> Migration:
    return migration_of(filled, models)


@pytest.fixture
def loop(migration: Migration, monkeypatch: pytest.MonkeyPatch) -> Iterator[MigrationLoop]:
    monkeypatch.setattr(migration_loop, "POLL_S", 0.01)
    monkeypatch.setattr(migration_loop, "LONGEST_PAUSE_S", 0.02)
    with closing(MigrationLoop(migration)) as loop:
        yield loop


def wait_for(migration: Migration, phase: Phase) -> None:
    moment = threading.Event()
    while (status := migration.status()) is None or status.record.phase is not phase:
        moment.wait(0.01)


@pytest.mark.usefixtures("loop")
def test_it_brings_a_migration_to_its_end_and_keeps_the_old_vectors_up_to_date(
    filled: SegmentIndex, migration: Migration, models: BothModels
) -> None:
    migration.start(NEWS)
    wait_for(migration, Phase.SWITCHED)
    write(filled, upsert_of(9, segment(1, "written afterwards")))
    moment = threading.Event()
    while (status := migration.status()) is None or status.rows_done < status.rows:
        moment.wait(0.01)
    models.asked.clear()
    migration.roll_back()
    assert filled.models == MODELS
    assert models.asked == []
    assert found(filled, TRANSCRIPT)[9, 1] == "written afterwards"


@pytest.mark.usefixtures("loop")
def test_what_passes_is_tried_again(migration: Migration, models: BothModels) -> None:
    models.failures = [NotReady("starting"), Overloaded("busy"), NotReady("again")]
    migration.start(NEWS)
    wait_for(migration, Phase.SWITCHED)
    assert models.failures == []


@pytest.mark.usefixtures("loop")
def test_what_does_not_pass_is_noted(
    filled: SegmentIndex, migration: Migration, models: BothModels
) -> None:
    models.failures = [ModelNotFound("no such files")]
    migration.start(NEWS)
    wait_for(migration, Phase.FAILED)
    status = migration.status()
    assert status is not None
    assert status.record.reason == "no such files"
    assert filled.models == MODELS
    migration.start(NEWS)
    wait_for(migration, Phase.SWITCHED)


@pytest.mark.usefixtures("loop")
def test_a_defect_is_noted_too(
    migration: Migration, models: BothModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.failures = [ZeroDivisionError("a defect")]  # type: ignore[list-item]
    migration.start(NEWS)
    wait_for(migration, Phase.FAILED)
    status = migration.status()
    assert status is not None
    assert status.record.reason == "ZeroDivisionError: a defect"


@pytest.mark.usefixtures("loop")
def test_after_the_switch_what_does_not_pass_is_tried_until_it_does(
    filled: SegmentIndex,
    migration: Migration,
    models: BothModels,
    caplog: pytest.LogCaptureFixture,
) -> None:
    migration.start(NEWS)
    wait_for(migration, Phase.SWITCHED)
    gone = threading.Event()

    def encode(*arguments: object) -> Encoded:
        if not gone.is_set():
            raise ModelNotFound("no such files")
        return models(*arguments)  # type: ignore[arg-type]

    migration._second._encode = encode
    write(filled, upsert_of(9, segment(1, "written afterwards")))
    moment = threading.Event()
    while (status := migration.status()) is None or status.record.reason is None:
        moment.wait(0.01)
    assert (status.record.phase, status.record.reason) == (Phase.SWITCHED, "no such files")
    gone.set()
    while (status := migration.status()) is None or status.record.reason is not None:
        moment.wait(0.01)
    assert (status.record.phase, status.rows_done) == (Phase.SWITCHED, status.rows)
    assert caplog.text.count("The migration can't go on: no such files") == 1
    migration.roll_back()
    assert found(filled, TRANSCRIPT)[9, 1] == "written afterwards"


def test_a_restart_goes_on_by_itself(
    filled: SegmentIndex, migration: Migration, models: BothModels
) -> None:
    migration.start(NEWS)
    filled.close()
    with SegmentIndex.open(filled.folder, MODELS) as again:
        once_more = migration_of(again, models)
        with closing(MigrationLoop(once_more)):
            wait_for(once_more, Phase.SWITCHED)
        assert again.models == NEWS
