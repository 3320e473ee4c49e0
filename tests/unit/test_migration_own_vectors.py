"""Segments whose vectors no model can make from their texts, and migrations."""

from dataclasses import replace

import numpy as np
import pytest
from migration_samples import (
    NEW,
    NEW_DIMENSION,
    NEWS,
    BothModels,
    contents,
    encoded,
    migration_of,
    own,
    phase,
    work_off,
    write,
)
from storage_samples import CLIP, FRAME, MODEL, MODELS, TRANSCRIPT, segment, upsert_of, vectors_of

from deployments.core.errors import Conflict, InvalidInput, ModelNotFound, ServiceError
from deployments.core.index.migration import Migration
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import DeleteMedia, EmbeddingType, Search, Upsert, UpsertResult
from deployments.core.storage import own_vector_check
from deployments.core.storage.migration_record import MigrationRecord, Phase
from deployments.core.storage.operations import Maintenance


@pytest.fixture
def models() -> BothModels:
    return BothModels()


@pytest.fixture
def migration(filled: SegmentIndex, models: BothModels) -> Migration:
    return migration_of(filled, models)


def record(migration: Migration) -> MigrationRecord:
    status = migration.status()
    assert status is not None
    return status.record


def by_cosine(index: SegmentIndex, kind: EmbeddingType) -> list[tuple[object, object, float]]:
    (hits,) = index.search([Search(kind, 100)], vectors_of(["own 1"]))
    return [(hit.media_item_id, hit.segment.id, hit.cosine) for hit in hits]


def test_an_index_that_has_some_keeps_its_model(filled: SegmentIndex, migration: Migration) -> None:
    filled.apply([Upsert(FRAME, 80, (own(1), own(2)))])
    before = by_cosine(filled, FRAME)
    with pytest.raises(InvalidInput, match="the frame index has 2 segments whose vectors came"):
        migration.start(NEWS)
    assert migration.status() is None
    migration.start({**NEWS, FRAME: MODEL})
    work_off(migration)
    assert filled.models == {**NEWS, FRAME: MODEL}
    assert by_cosine(filled, FRAME) == before
    migration.roll_back()
    assert by_cosine(filled, FRAME) == before
    assert filled.verify() == []


def image(index: SegmentIndex, kind: EmbeddingType) -> Upsert:
    """A segment whose vector is that of an image."""
    shown = replace(segment(1, "what it shows"), image_digest=b"d" * 16)
    vectors = encoded(index.models[kind], ["the image"])
    return Upsert(kind, 81, (shown,), vectors=vectors, vector_positions=(0,))


def refused(index: SegmentIndex) -> list[str]:
    """What is said to an own vector and to an image, beside a text that is stored all the same."""
    dimension = index.models[FRAME].dimension
    said = f"text {index.condition().commit_id}"
    text = Upsert(
        FRAME,
        82,
        (segment(1, said),),
        vectors=encoded(index.models[FRAME], [said]),
        vector_positions=(0,),
    )
    with_own = Upsert(FRAME, 80, (segment(2, "a text"), own(1, dimension)))
    outcomes = index.apply([with_own, image(index, FRAME), text])
    assert isinstance(outcomes.pop(), UpsertResult)
    assert contents(index)[FRAME][82, 1] == said
    assert all(isinstance(each, Conflict) for each in outcomes), outcomes
    assert not {80, 81} & {media for media, _ in contents(index)[FRAME]}
    return [each.detail for each in outcomes if isinstance(each, ServiceError)]


def test_none_are_stored_until_the_migration_has_ended(
    filled: SegmentIndex, migration: Migration, models: BothModels
) -> None:
    migration.start({**MODELS, FRAME: NEW}, switch_when_ready=False)
    for each in refused(filled):
        assert "a migration of the frame index to new-model is under way" in each
        assert "`embeddings-service migrate --end`)" in each
    models.failures = [ModelNotFound("gone")]
    with pytest.raises(ModelNotFound):
        migration.step()
    migration.fail("gone")
    assert phase(migration) is Phase.FAILED
    refused(filled)
    migration.start({**MODELS, FRAME: NEW}, switch_when_ready=False)
    work_off(migration)
    assert phase(migration) is Phase.READY
    refused(filled)
    migration.switch()
    for each in refused(filled):
        assert "a migration of the frame index to new-model is under way" in each
        assert "migrate --end`, after --rollback if it is to keep sample-model)" in each
    work_off(migration)
    assert (phase(migration), record(migration).reason) == (Phase.SWITCHED, None)
    migration.roll_back()
    refused(filled)
    migration.switch()
    migration.end()
    own_one, image_one = filled.apply(
        [Upsert(FRAME, 80, (own(1, NEW_DIMENSION),)), image(filled, FRAME)]
    )
    assert own_one == image_one == UpsertResult(stored=1, changed=1)
    assert filled.verify() == []


def test_other_indices_take_them_meanwhile(filled: SegmentIndex, migration: Migration) -> None:
    migration.start({**MODELS, FRAME: NEW})
    for number in (1, 2):
        assert filled.apply([Upsert(CLIP, number, (own(number),))]) == [
            UpsertResult(stored=1, changed=1)
        ]
        work_off(migration)
    assert phase(migration) is Phase.SWITCHED
    before = by_cosine(filled, CLIP)
    assert len(before) == 2
    migration.roll_back()
    assert by_cosine(filled, CLIP) == before
    assert filled.verify() == []


@pytest.mark.parametrize("own_first", [True, False])
def test_none_slips_in_beside_the_start(
    filled: SegmentIndex, models: BothModels, own_first: bool
) -> None:
    outcomes = []

    def apply(change: Maintenance) -> int:
        """The start and a write in one transaction."""
        write = Upsert(FRAME, 80, (own(1),))
        both = filled.apply([write, change] if own_first else [change, write])
        outcomes.extend(both if own_first else reversed(both))
        if isinstance(outcomes[1], ServiceError):
            raise outcomes[1]
        return 0

    migration = Migration(filled, apply, models)
    if own_first:
        with pytest.raises(InvalidInput, match="the frame index has 1 segments"):
            migration.start(NEWS)
        assert migration.status() is None
        assert isinstance(outcomes[0], UpsertResult)
    else:
        migration.start(NEWS)
        assert phase(migration) is Phase.RUNNING
        assert isinstance(outcomes[0], Conflict)


@pytest.fixture
def stored_before(filled: SegmentIndex, monkeypatch: pytest.MonkeyPatch) -> Upsert:
    """What an earlier version let in; `apply` takes it."""
    monkeypatch.setattr(own_vector_check, "refuse_during_migration", lambda *_: None)
    return Upsert(FRAME, 80, (own(1, NEW_DIMENSION),))


def test_the_old_vectors_are_caught_up_with_once_it_is_gone(
    filled: SegmentIndex, migration: Migration, stored_before: Upsert
) -> None:
    migration.start(NEWS)
    work_off(migration)
    filled.apply([stored_before])
    write(filled, upsert_of(85, segment(1, "a text"), kind=FRAME))
    with pytest.raises(InvalidInput, match="whose vectors came with them") as raised:
        migration.step()
    migration.fail(raised.value.detail)
    assert (phase(migration), record(migration).reason) == (Phase.SWITCHED, raised.value.detail)
    with pytest.raises(InvalidInput, match="whose vectors came with them"):
        migration.roll_back()
    with pytest.raises(InvalidInput, match="whose vectors came with them"):
        migration.step()
    filled.apply([DeleteMedia(80)])
    work_off(migration)
    status = migration.status()
    assert status is not None
    assert status.record.reason is None
    assert status.rows_done == status.rows
    migration.roll_back()
    assert contents(filled)[FRAME][85, 1] == "a text"


def test_a_migration_that_failed_for_it_goes_on_once_it_is_gone(
    filled: SegmentIndex, migration: Migration, stored_before: Upsert
) -> None:
    migration.start(NEWS)
    filled.apply([replace(stored_before, segments=(own(1),))])
    with pytest.raises(InvalidInput):
        work_off(migration)
    migration.fail("such a segment came")
    assert (phase(migration), filled.models) == (Phase.FAILED, MODELS)
    assert not migration.step()
    with pytest.raises(InvalidInput, match="the frame index has 1 segments"):
        migration.start(NEWS)
    assert phase(migration) is Phase.FAILED
    filled.apply([DeleteMedia(80)])
    migration.start(NEWS)
    work_off(migration)
    assert (phase(migration), record(migration).reason) == (Phase.SWITCHED, None)
    assert np.isclose(filled.search([Search(TRANSCRIPT, 1)], encoded(NEW, ["RSI"]))[0][0].cosine, 1)
