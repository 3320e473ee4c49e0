"""An index changes its model while it is written to and searched."""

import gzip
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from folder_samples import execute
from migration_samples import (
    NEW,
    NEWS,
    BothModels,
    contents,
    cut_texts,
    found,
    migration_of,
    new_vectors_of,
    phase,
    work_off,
    write,
)
from storage_samples import (
    CLIP,
    FRAME,
    MODEL,
    MODELS,
    TRANSCRIPT,
    segment,
    stored,
    upsert_of,
    vectors_of,
)

from deployments.core.errors import (
    Conflict,
    InvalidInput,
    ModelNotFound,
    NotReady,
    OtherModel,
    StoreError,
    StoreMismatch,
)
from deployments.core.folders.backup import back_up
from deployments.core.folders.folder_verify import verify_folder
from deployments.core.index import second_vectors
from deployments.core.index.migration import Migration
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import (
    DeleteMedia,
    EmbeddingType,
    ModelIdentity,
    Search,
    Upsert,
    UpsertResult,
)
from deployments.core.storage.migration_record import Overlap, Phase

FORMAT_2 = Path(__file__).parent / "stores" / "format_2.sqlite3.gz"
"""What `folder_samples.fill` made of a new folder with the code of format 2."""

LONG = "a text of more than twenty characters"


@pytest.fixture
def models() -> BothModels:
    return BothModels()


@pytest.fixture
def migration(filled: SegmentIndex, models: BothModels) -> Migration:
    write(filled, upsert_of(9, segment(1, LONG), segment(2, "RSI"), kind=CLIP))
    return migration_of(filled, models)


def test_every_segment_is_encoded_once_and_then_found_with_the_new_model(
    filled: SegmentIndex, migration: Migration, models: BothModels
) -> None:
    before, sequences = contents(filled), filled.stats().last_sequence
    migration.start(NEWS)
    assert phase(migration) is Phase.RUNNING
    assert contents(filled) == before
    assert filled.stats().models == MODELS
    work_off(migration)
    assert phase(migration) is Phase.SWITCHED
    assert filled.stats().models == NEWS
    assert contents(filled) == before
    assert cut_texts(filled) == {LONG}
    assert sorted(models.stored_texts(NEW)) == sorted(
        text for kind in before.values() for text in kind.values()
    )
    assert filled.stats().last_sequence == sequences
    assert filled.verify() == []


def test_its_status_says_how_far_it_is(
    filled: SegmentIndex, migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_vectors, "BATCH_ROWS", 2)
    assert migration.status() is None
    migration.start(NEWS)
    status = migration.status()
    assert status is not None
    assert (status.old, status.new, status.rows_done, status.rows) == (MODELS, NEWS, 0, 6)
    migration.step()
    status = migration.status()
    assert status is not None
    assert (status.rows_done, status.rows, status.record.overlap) == (2, 6, {})
    work_off(migration)
    status = migration.status()
    assert status is not None
    assert (status.old, status.new, status.rows_done) == (MODELS, NEWS, 6)
    assert status.record.switched_at is not None
    assert status.record.switched_at >= status.record.started_at


def test_it_waits_for_the_switch_if_told_so(filled: SegmentIndex, migration: Migration) -> None:
    migration.start(NEWS, switch_when_ready=False)
    with pytest.raises(Conflict, match="is running, not ready"):
        migration.switch()
    work_off(migration)
    assert phase(migration) is Phase.READY
    assert filled.models == MODELS
    write(filled, upsert_of(11, segment(1, "came while it waited")))
    migration.switch()
    assert phase(migration) is Phase.SWITCHED
    assert found(filled, TRANSCRIPT)[11, 1] == "came while it waited"
    with pytest.raises(Conflict, match="is switched, not ready"):
        migration.switch()


def test_the_overlap_is_the_share_of_common_neighbours(
    open_index: Callable[[], SegmentIndex], models: BothModels
) -> None:
    index = open_index()
    texts = [f"text {number}" for number in range(40)]
    write(index, upsert_of(1, *(segment(i, text) for i, text in enumerate(texts))))
    write(index, upsert_of(1, segment(1, "alone"), kind=FRAME))
    migration = migration_of(index, models)
    migration.start(NEWS, switch_when_ready=False)
    work_off(migration)
    status = migration.status()
    assert status is not None
    shares = []
    old, new = vectors_of(texts), new_vectors_of(texts)
    for row in range(40):
        tens = []
        for vectors in (old, new):
            cosines = vectors @ vectors[row]
            cosines[row] = -2
            tens.append(set(np.argsort(-cosines)[:10].tolist()))
        shares.append(len(tens[0] & tens[1]) / 10)
    found = status.record.overlap
    assert found[TRANSCRIPT] == Overlap(40, pytest.approx(np.mean(shares)))
    assert 0.3 < found[TRANSCRIPT].overlap_at_10 < 1
    assert found[FRAME] == Overlap(1, 1.0)
    assert CLIP not in found


def test_writes_before_during_and_after_are_in_both(
    filled: SegmentIndex, migration: Migration
) -> None:
    migration.start(NEWS)
    migration.step()
    write(filled, upsert_of(1, segment(1, "changed")))
    write(filled, upsert_of(20, segment(1, "new"), segment(2, "gone soon")))
    filled.delete_media(2)
    work_off(migration)
    write(filled, upsert_of(20, segment(1, "new"), replace=True))
    write(filled, upsert_of(21, segment(1, "after the switch")))
    expected = contents(filled)
    assert expected[TRANSCRIPT] == {
        (1, 1): "changed",
        (1, "b"): "MACD",
        (20, 1): "new",
        (21, 1): "after the switch",
    }
    migration.roll_back()
    assert filled.models == MODELS
    assert contents(filled) == expected
    assert cut_texts(filled) == set()
    write(filled, upsert_of(22, segment(1, "after the rollback")))
    migration.switch()
    assert contents(filled)[TRANSCRIPT] == {
        **expected[TRANSCRIPT],
        (22, 1): "after the rollback",
    }
    assert filled.verify() == []


def test_one_type_alone_gets_another_model(
    filled: SegmentIndex, migration: Migration, models: BothModels
) -> None:
    before = contents(filled)
    migration.start({**MODELS, FRAME: NEW})
    work_off(migration)
    assert filled.models == {TRANSCRIPT: MODEL, FRAME: NEW, CLIP: MODEL}
    assert models.stored_texts(NEW) == ["a chart"]
    assert set(migration.status().record.overlap) == {FRAME}  # type: ignore[union-attr]
    write(filled, upsert_of(40, segment(1, "a line"), kind=FRAME))
    write(filled, upsert_of(40, segment(1, "said")))
    migration.roll_back()
    assert contents(filled) == {
        **before,
        FRAME: {**before[FRAME], (40, 1): "a line"},
        TRANSCRIPT: {**before[TRANSCRIPT], (40, 1): "said"},
    }
    assert models.stored_texts(MODEL) == ["a line"]
    assert filled.verify() == []


def test_an_empty_index_changes_its_model_too(
    open_index: Callable[[], SegmentIndex], models: BothModels
) -> None:
    index = open_index()
    migration = migration_of(index, models)
    migration.start(NEWS)
    work_off(migration)
    assert index.models == NEWS
    write(index, upsert_of(1, segment(1, "the first")))
    assert found(index, TRANSCRIPT) == {(1, 1): "the first"}


# What can't be


def test_what_an_index_has_already_is_no_migration(migration: Migration) -> None:
    renamed = ModelIdentity("/models/sample", MODEL.fingerprint, MODEL.dimension)
    with pytest.raises(InvalidInput, match="of /models/sample already"):
        migration.start(dict.fromkeys(EmbeddingType, renamed))
    assert migration.status() is None


def test_one_migration_at_a_time(migration: Migration) -> None:
    migration.start(NEWS)
    other = ModelIdentity("a third", "33" * 32, 8)
    with pytest.raises(Conflict, match="a migration to new-model isn't done"):
        migration.start(dict.fromkeys(EmbeddingType, other))
    assert migration.status().new == NEWS  # type: ignore[union-attr]


@pytest.mark.parametrize("act", ["switch", "roll_back", "end"])
def test_without_a_migration_there_is_nothing_to_do(migration: Migration, act: str) -> None:
    assert migration.step() is False
    with pytest.raises(Conflict, match="there is no migration"):
        getattr(migration, act)()


def test_queries_and_vectors_of_the_other_model_are_refused(
    filled: SegmentIndex, migration: Migration
) -> None:
    twin = ModelIdentity("twin", "22" * 32, MODEL.dimension)
    old = filled.reads.comparing(dict.fromkeys(EmbeddingType, MODEL.fingerprint))
    migration._second._encode = lambda model, texts, kind: BothModels()(MODEL, texts, kind)
    migration.start(dict.fromkeys(EmbeddingType, twin))
    search, query = Search(TRANSCRIPT, 1), vectors_of(["RSI"])
    assert old.answer([search], query)[0].hits[0].segment.text == "RSI"
    upsert = Upsert(
        TRANSCRIPT,
        50,
        (segment(1),),
        vectors=vectors_of(["x"]),
        vector_positions=(0,),
        fingerprint=MODEL.fingerprint,
    )
    work_off(migration)
    assert filled.models[TRANSCRIPT] == twin
    with pytest.raises(OtherModel, match="transcript"):
        old.answer([search], query)
    (outcome,) = filled.apply([upsert])
    assert isinstance(outcome, OtherModel)
    assert filled.stats().vectors[TRANSCRIPT] == 3
    new = filled.reads.comparing({TRANSCRIPT: twin.fingerprint})
    assert new.answer([search], query)[0].hits[0].segment.text == "RSI"


# The end of it, and going on after failures


def test_giving_up_leaves_the_index_as_it_was(filled: SegmentIndex, migration: Migration) -> None:
    before = contents(filled)
    migration.start(NEWS)
    migration.step()
    migration.end()
    assert migration.status() is None
    assert (filled.models, contents(filled)) == (MODELS, before)
    assert filled.verify() == []
    migration.start(NEWS)
    work_off(migration)
    assert (filled.models, contents(filled)) == (NEWS, before)


def test_after_the_end_there_is_no_way_back(filled: SegmentIndex, migration: Migration) -> None:
    migration.start(NEWS)
    work_off(migration)
    migration.end()
    assert filled.models == NEWS
    with pytest.raises(Conflict, match="no migration"):
        migration.roll_back()
    with closing(sqlite3.connect(filled.folder / "store.sqlite3")) as connection:
        for table in ("standby_vectors", "standby_marks", "standby_models"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_an_encoder_that_is_not_ready_costs_nothing(
    filled: SegmentIndex, migration: Migration, models: BothModels
) -> None:
    migration.start(NEWS)
    models.failures = [NotReady("starting")]
    with pytest.raises(NotReady):
        migration.step()
    assert phase(migration) is Phase.RUNNING
    work_off(migration)
    assert filled.models == NEWS


def test_one_that_failed_goes_on_when_it_is_started_again(
    filled: SegmentIndex,
    migration: Migration,
    models: BothModels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(second_vectors, "BATCH_ROWS", 2)
    migration.start(NEWS)
    migration.step()
    write(filled, upsert_of(60, segment(1, "later")))
    models.failures = [ModelNotFound("its files are gone")]
    with pytest.raises(ModelNotFound):
        migration.step()
    migration.fail("its files are gone")
    assert migration.step() is False
    status = migration.status()
    assert status is not None
    assert (status.record.phase, status.record.reason) == (Phase.FAILED, "its files are gone")
    assert len(models.stored_texts(NEW)) == 2 + 2  # the last two in vain
    migration.start(NEWS)
    work_off(migration)
    assert len(models.stored_texts(NEW)) == 2 + 2 + 5
    assert models.stored_texts(NEW)[-1] == "later"
    status = migration.status()
    assert status is not None
    assert (status.record.phase, status.record.reason) == (Phase.SWITCHED, None)


def test_standby_vectors_that_are_damaged_are_not_taken(
    filled: SegmentIndex, migration: Migration
) -> None:
    before = contents(filled)
    migration.start(NEWS, switch_when_ready=False)
    work_off(migration)
    execute(filled.folder, "UPDATE standby_vectors SET vector=zeroblob(96) WHERE seq=2")
    with pytest.raises(StoreError, match=r"can't be used: With its standby vector, Row 2"):
        migration.switch()
    assert (filled.models, contents(filled)) == (MODELS, before)
    assert filled.damage.current is None
    (problem,) = filled.verify()
    assert "The standby vector of Row 2" in problem
    migration.end()
    migration.start(NEWS)
    work_off(migration)
    assert (filled.models, contents(filled)) == (NEWS, before)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM standby_vectors WHERE seq=2", "Standby vector 2 is missing."),
        ("DELETE FROM standby_marks WHERE seq=2", "Standby vector 2 has no mark."),
        ("INSERT INTO standby_vectors VALUES (99, x'00')", "Standby vector 99 has no"),
        ("UPDATE standby_marks SET truncated=1 WHERE seq=2", "The standby vector of Row 2"),
    ],
)
def test_verify_looks_at_the_standby_vectors(
    filled: SegmentIndex, migration: Migration, statement: str, problem: str
) -> None:
    migration.start(NEWS)
    work_off(migration)
    execute(filled.folder, statement)
    assert any(problem in each for each in verify_folder(filled.folder).problems)


# Restarts, older stores and copies


def test_a_restart_goes_on_where_it_was(
    filled: SegmentIndex,
    migration: Migration,
    models: BothModels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(second_vectors, "BATCH_ROWS", 2)
    before = contents(filled)
    migration.start(NEWS)
    migration.step()
    migration.step()
    filled.close()
    with SegmentIndex.open(filled.folder, MODEL) as again:
        work_off(migration_of(again, models))
        assert (again.models, contents(again)) == (NEWS, before)
    texts = models.stored_texts(NEW)
    assert len(texts) == len(set(texts)) + 1 == 6  # "RSI" is there twice


def test_the_former_model_opens_the_store_only_where_that_is_wanted(
    filled: SegmentIndex, migration: Migration
) -> None:
    migration.start(NEWS)
    work_off(migration)
    before = contents(filled)
    filled.close()
    folder = filled.folder
    with pytest.raises(StoreMismatch, match="set EMBEDDING_MODEL=new-model"):
        SegmentIndex.open(folder, MODEL)
    with SegmentIndex.open(folder, MODEL, accept_former=True) as again:
        assert (again.models, contents(again)) == (NEWS, before)
    with SegmentIndex.open(folder, NEW) as again:
        assert again.stats().rebuilt == {}
        assert contents(again) == before
    third = ModelIdentity("a third", "33" * 32, 8)
    with pytest.raises(StoreMismatch, match="a third"):
        SegmentIndex.open(folder, third, accept_former=True)


def test_a_backup_has_both_models_vectors(
    filled: SegmentIndex, migration: Migration, models: BothModels, target: Path
) -> None:
    migration.start(NEWS)
    work_off(migration)
    filled.checkpoint()
    copied = back_up(filled.folder, target)
    assert (copied.models, copied.left_out) == (NEWS, [])
    with SegmentIndex.open(target, NEW) as copy:
        migration_of(copy, models).roll_back()
        assert (copy.models, contents(copy)) == (MODELS, contents_of_old(filled, migration))


def contents_of_old(
    index: SegmentIndex, migration: Migration
) -> dict[EmbeddingType, dict[tuple[object, object], str]]:
    migration.roll_back()
    return contents(index)


def test_a_store_of_format_2_is_brought_forward_and_can_be_migrated(
    folder: Path, models: BothModels
) -> None:
    folder.mkdir()
    (folder / "store.sqlite3").write_bytes(gzip.decompress(FORMAT_2.read_bytes()))
    assert verify_folder(folder).problems == []
    with SegmentIndex.open(folder, MODEL) as index:
        assert index.verify() == []
        assert contents(index) == {
            TRANSCRIPT: {(1, 1): "RSI", (1, "b"): "MACD", (2, 3): "after the checkpoint"},
            FRAME: {("two", 1): "a chart"},
            CLIP: {},
        }
        assert stored(index)[1, 1].metadata == {"speaker": "A"}
        before = contents(index)
        migration = migration_of(index, models)
        migration.start(NEWS)
        work_off(migration)
        assert (index.models, contents(index)) == (NEWS, before)


def test_deleted_and_unknown_rows_get_no_vectors(
    filled: SegmentIndex, migration: Migration, models: BothModels
) -> None:
    encode = migration._second._encode

    def deleting(model, texts, kind):  # type: ignore[no-untyped-def]
        filled.apply([DeleteMedia(1)])
        return encode(model, texts, kind)

    migration._second._encode = deleting
    migration.start(NEWS)
    work_off(migration)
    assert found(filled, TRANSCRIPT) == {(2, 3): "after the checkpoint"}
    assert filled.verify() == []


def test_a_text_that_keeps_its_vector_keeps_it_in_both(
    filled: SegmentIndex, migration: Migration
) -> None:
    migration.start(NEWS)
    work_off(migration)
    moved = Upsert(TRANSCRIPT, 1, (segment(77, "RSI"),))
    (outcome,) = filled.apply([moved])
    assert isinstance(outcome, UpsertResult)
    assert outcome.missing == ()
    assert found(filled, TRANSCRIPT)[1, 77] == "RSI"
    migration.roll_back()
    assert found(filled, TRANSCRIPT)[1, 77] == "RSI"
