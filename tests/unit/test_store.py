import hashlib
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from storage_samples import CLIP, DIMENSION, FRAME, MODEL, TRANSCRIPT, segment, vector_of

from deployments.core.errors import (
    NotReady,
    ServiceError,
    StoreDamaged,
    StoreError,
    StoreMismatch,
)
from deployments.core.segments import EmbeddingType, ModelIdentity
from deployments.core.storage import schema_sql, store_check
from deployments.core.storage import store as store_module
from deployments.core.storage.segment_rows import row_of
from deployments.core.storage.store import Store
from deployments.core.storage.store_inspection import exists
from deployments.core.storage.store_writer import StoreWriter

MODELS = dict.fromkeys(EmbeddingType, MODEL)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path, MODELS)) as opened:
        yield opened


def add(writer: StoreWriter, name: str, kind: EmbeddingType = TRANSCRIPT) -> int:
    row = row_of("video", segment(name))
    (seq,) = writer.insert(kind, [(row, vector_of(row.text).tobytes(), False)])
    return seq


def added(store: Store, *names: str, kind: EmbeddingType = TRANSCRIPT) -> list[int]:
    with store.transaction() as writer:
        return [add(writer, name, kind) for name in names]


def names_in(store: Store, kind: EmbeddingType = TRANSCRIPT) -> list[str]:
    with store.reading() as reader:
        sequences = reader.sequences(kind).tolist()
        return [str(row[3]) for row in reader.rows(sequences).values()]


def commit_id(store: Store) -> int:
    with store.reading() as reader:
        return reader.commit_id()


def pragma(store: Store, name: str) -> object:
    assert store._writer is not None
    return store._writer.execute(f"PRAGMA {name}").fetchone()[0]


def problems(store: Store) -> list[str]:
    with store.reading() as reader:
        return store_check.problems(reader, MODELS)


def test_it_is_as_durable_as_promised(store: Store) -> None:
    assert pragma(store, "journal_mode") == "wal"
    assert pragma(store, "synchronous") == 2  # FULL: each commit is synced
    assert pragma(store, "page_size") == schema_sql.PAGE_BYTES


def test_a_transaction_is_kept_whole_and_counted(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path, MODELS)) as store:
        assert (commit_id(store), names_in(store)) == (0, [])
        assert added(store, "a", "b") == [1, 2]
        assert added(store, "c", kind=CLIP) == [3]
        store_id = store.store_id
    with closing(Store.open(tmp_path, MODELS)) as store:
        assert (commit_id(store), names_in(store)) == (2, ["a", "b"])
        assert store.store_id == store_id
        with store.reading() as reader:
            assert reader.last_sequence() == 3
            assert [reader.sequences(kind).tolist() for kind in (FRAME, CLIP)] == [[], [3]]
            assert np.array_equal(reader.vectors([3], DIMENSION), [vector_of("text of c")])


def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    added(store, "a")

    def fail() -> None:
        with store.transaction() as writer:
            add(writer, "b")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert (commit_id(store), names_in(store)) == (1, ["a"])
    assert added(store, "c") == [2]


def test_a_transaction_without_changes_is_no_commit(store: Store) -> None:
    with store.transaction() as writer:
        writer.delete([])
        assert writer.insert(TRANSCRIPT, []) == []
    assert commit_id(store) == 0


def add_and_undo(writer: StoreWriter, name: str) -> None:
    with suppress(RuntimeError), writer.savepoint():
        add(writer, name)
        assert writer.changed
        raise RuntimeError


def test_a_savepoint_undoes_one_operation_only(store: Store) -> None:
    with store.transaction() as writer:
        add(writer, "a")
        add_and_undo(writer, "b")
        assert writer.intact
        add(writer, "c")
    assert names_in(store) == ["a", "c"]


def test_an_undone_savepoint_is_no_change(store: Store) -> None:
    with store.transaction() as writer:
        add_and_undo(writer, "b")
        assert not writer.changed
    assert commit_id(store) == 0


def test_sequence_numbers_are_never_used_again(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path, MODELS)) as store:
        (seq,) = added(store, "a")
        with store.transaction() as writer:
            writer.delete([seq])
    with closing(Store.open(tmp_path, MODELS)) as store:
        assert names_in(store) == []
        assert added(store, "a") == [2]


def test_a_reader_keeps_its_moment(store: Store) -> None:
    added(store, "a")
    with store.reading() as reader:
        assert reader.commit_id() == 1
        added(store, "b")
        assert reader.sequences(TRANSCRIPT).tolist() == [1]
        assert reader.commit_id() == 1
    assert names_in(store) == ["a", "b"]


def test_readers_cannot_write(store: Store) -> None:
    with store.reading() as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.connection.execute("DELETE FROM segments")


def test_connections_are_used_again_and_closed(tmp_path: Path) -> None:
    store = Store.open(tmp_path, MODELS)
    with store.reading() as first, store.reading() as second:
        connections = {first.connection, second.connection}
        assert len(connections) == 2
    with store.reading() as third:
        assert third.connection in connections
    store.close()
    store.close()
    for connection in connections:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
    with pytest.raises(NotReady), store.reading():
        pass
    with pytest.raises(NotReady), store.transaction():
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["store.sqlite3"]


def test_closing_waits_for_readers(store: Store) -> None:
    inside, leave = threading.Event(), threading.Event()
    read: list[int] = []

    def reading() -> None:
        with store.reading() as reader:
            inside.set()
            leave.wait(10)
            read.append(reader.commit_id())

    reader = threading.Thread(target=reading)
    reader.start()
    inside.wait(10)
    closer = threading.Thread(target=store.close)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive()
    leave.set()
    closer.join()
    reader.join()
    assert read == [0]


@pytest.fixture
def small_log(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store_module, "_LOG_BYTES", 100_000)
    monkeypatch.setattr(store, "_log_limit", 100_000)
    return tmp_path / "store.sqlite3-wal"


def test_the_log_grows_behind_a_long_read_and_is_emptied_after_it(
    store: Store, small_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_LOG_WAIT_MS", 5)
    with store.reading() as long_read:
        assert long_read.commit_id() == 0
        for number in range(60):
            added(store, f"{number}")
        assert small_log.stat().st_size > 500_000
        assert long_read.sequences(TRANSCRIPT).tolist() == []
    sizes = []
    for number in range(60, 90):
        added(store, f"{number}")
        sizes.append(small_log.stat().st_size)
    assert 0 in sizes
    assert max(sizes[sizes.index(0) :]) < 150_000
    assert len(names_in(store)) == 90


def test_the_log_stays_small_though_reads_overlap(store: Store, small_log: Path) -> None:
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            with store.reading() as reader:
                reader.commit_id()
                ended.wait(0.005)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    sizes = []
    for number in range(100):
        added(store, f"{number}")
        sizes.append(small_log.stat().st_size)
    ended.set()
    for reader in readers:
        reader.join()
    assert max(sizes) < 1_000_000  # 100,000 on an idle machine; 5,000,000 without trimming
    assert len(names_in(store)) == 100


def contents(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def refused(folder: Path, error: type[ServiceError], model: ModelIdentity = MODEL) -> str:
    """The message with which the folder is refused, having seen that nothing was written."""
    before = contents(folder)
    with pytest.raises(error) as raised:
        Store.open(folder, dict.fromkeys(EmbeddingType, model))
    assert type(raised.value) is error
    assert contents(folder) == before
    return raised.value.detail


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "store.sqlite3")) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.fixture
def closed_folder(tmp_path: Path) -> Path:
    with closing(Store.open(tmp_path, MODELS)) as store:
        added(store, *"abcdef")
    return tmp_path


def test_another_model_is_refused(closed_folder: Path) -> None:
    other = ModelIdentity("other-model", "0f" * 32, DIMENSION)
    message = refused(closed_folder, StoreMismatch, other)
    for part in ("sample-model", "other-model", "5a5a5a5a5a5a", "0f0f0f0f0f0f", "16 dimensions"):
        assert part in message
    assert "EMBEDDING_MODEL=sample-model" in message


def test_another_dimension_is_refused(closed_folder: Path) -> None:
    message = refused(
        closed_folder, StoreMismatch, ModelIdentity("sample-model", MODEL.fingerprint, 512)
    )
    assert "512 dimensions" in message


def test_the_same_model_under_another_name_is_accepted(closed_folder: Path) -> None:
    renamed = ModelIdentity("/models/sample", MODEL.fingerprint, DIMENSION)
    with closing(Store.open(closed_folder, dict.fromkeys(EmbeddingType, renamed))) as store:
        assert names_in(store) == list("abcdef")


def test_a_newer_version_is_refused(closed_folder: Path) -> None:
    change(closed_folder, "UPDATE meta SET value=7 WHERE key='format'")
    assert f"format 7, this one reads up to {schema_sql.FORMAT}" in refused(
        closed_folder, StoreMismatch
    )


def test_a_log_that_was_left_behind_stays_when_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with closing(Store.open(source, MODELS)) as store:
        added(store, "a")
        killed = tmp_path / "killed"
        killed.mkdir()
        for name in ("store.sqlite3", "store.sqlite3-wal"):
            (killed / name).write_bytes((source / name).read_bytes())
    other = ModelIdentity("other", "00" * 32, DIMENSION)
    before = contents(killed)
    with pytest.raises(StoreMismatch):
        Store.open(killed, dict.fromkeys(EmbeddingType, other))
    after = contents(killed)
    after.pop("store.sqlite3-shm", None)  # made by reading; holds nothing
    assert after == before
    with closing(Store.open(killed, MODELS)) as store:
        assert names_in(store) == ["a"]


def test_older_versions_are_brought_forward(
    closed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = schema_sql.FORMAT
    monkeypatch.setattr(schema_sql, "FORMAT", now + 2)
    monkeypatch.setattr(
        schema_sql,
        "MIGRATIONS",
        schema_sql.MIGRATIONS
        | {
            now: "CREATE TABLE extra (name TEXT) STRICT; INSERT INTO extra VALUES ('one');",
            now + 1: "INSERT INTO extra VALUES ('two')",
        },
    )
    for _ in range(2):
        with closing(Store.open(closed_folder, MODELS)) as store, store.reading() as reader:
            rows = reader.connection.execute("SELECT name FROM extra").fetchall()
            assert rows == [("one",), ("two",)]
            version = reader.connection.execute("SELECT value FROM meta WHERE key='format'")
            assert version.fetchone() == (now + 2,)


def test_a_migration_that_fails_changes_nothing(
    closed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = schema_sql.FORMAT
    monkeypatch.setattr(schema_sql, "FORMAT", now + 1)
    failing = {now: "DELETE FROM segments; SELECT nonsense"}
    monkeypatch.setattr(schema_sql, "MIGRATIONS", schema_sql.MIGRATIONS | failing)
    with pytest.raises(StoreError, match="nonsense"):
        Store.open(closed_folder, MODELS)
    monkeypatch.undo()
    with closing(Store.open(closed_folder, MODELS)) as store:
        assert names_in(store) == list("abcdef")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3").write_bytes(b"not a database, but long enough to be one" * 99)
    message = refused(tmp_path, StoreDamaged)
    assert "store.sqlite3" in message
    assert "backup" in message


def test_a_database_of_something_else(tmp_path: Path) -> None:
    change(tmp_path, "CREATE TABLE song (name)")
    assert "not of this service" in refused(tmp_path, StoreDamaged)


@pytest.mark.parametrize("key", ["format", "commit_id", "store_id"])
def test_a_store_without_its_meta_rows(closed_folder: Path, key: str) -> None:
    change(closed_folder, f"DELETE FROM meta WHERE key='{key}'")
    assert f"lacks its {key}" in refused(closed_folder, StoreDamaged)


def test_a_store_without_a_model(closed_folder: Path) -> None:
    change(closed_folder, "DELETE FROM models WHERE embedding_type='clip'")
    assert "which model its clip vectors are of" in refused(closed_folder, StoreDamaged)


def test_a_store_that_was_cut_off(closed_folder: Path) -> None:
    path = closed_folder / "store.sqlite3"
    path.write_bytes(path.read_bytes()[: 3 * schema_sql.PAGE_BYTES])
    assert "damaged" in refused(closed_folder, StoreDamaged)


def test_overwritten_pages_are_noticed_at_the_start(closed_folder: Path) -> None:
    path = closed_folder / "store.sqlite3"
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // schema_sql.PAGE_BYTES):
        broken = content.copy()
        start = page * schema_sql.PAGE_BYTES
        broken[start : start + schema_sql.PAGE_BYTES] = b"\xa5" * schema_sql.PAGE_BYTES
        path.write_bytes(broken)
        assert "damaged" in refused(closed_folder, StoreDamaged)


def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3").touch()
    assert not exists(tmp_path)
    with closing(Store.open(tmp_path, MODELS)) as store:
        assert added(store, "a") == [1]
    assert exists(tmp_path)


def test_what_a_cut_off_first_start_left_is_not_taken_for_a_part_of_the_new_store(
    tmp_path: Path, closed_folder: Path
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    other = (closed_folder / "store.sqlite3").read_bytes()
    (folder / "store.sqlite3").write_bytes(b"")
    for name in ("store.sqlite3-journal", "store.sqlite3.writing", "store.sqlite3.writing-wal"):
        (folder / name).write_bytes(other)
    with closing(Store.open(folder, MODELS)) as store:
        assert names_in(store) == []
        added(store, "a")
        assert problems(store) == []
    assert [file.name for file in folder.iterdir()] == ["store.sqlite3"]


def test_verify_finds_nothing_in_a_whole_store(store: Store) -> None:
    added(store, "a", "b")
    assert problems(store) == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE segments SET text='other' WHERE seq=2", "Row 2 .* 'b'.* checksum differs"),
        ("UPDATE segments SET start_time=1.0 WHERE seq=2", "Row 2 .*checksum differs"),
        ("UPDATE segments SET media_item_id=1 WHERE seq=2", "Row 2 .*checksum differs"),
        ("UPDATE segments SET truncated=1 WHERE seq=2", "Row 2 .*checksum differs"),
        ("UPDATE segments SET metadata='{}' || ' ' WHERE seq=2", "Row 2 .*checksum differs"),
        (
            "UPDATE vectors SET vector=(SELECT vector FROM vectors WHERE seq=1) WHERE seq=2",
            "Row 2 .*checksum differs",
        ),
        ("DELETE FROM vectors WHERE seq=2", "Row 2 has no vector"),
        (
            "DELETE FROM segments WHERE seq=2; DELETE FROM keywords WHERE rowid=2; "
            "DELETE FROM keyword_lengths WHERE seq=2",
            "Vector 2 has no segment",
        ),
    ],
)
def test_verify_finds(store: Store, statement: str, found: str) -> None:
    added(store, "a", "b", "c")
    assert store._writer is not None
    for each in statement.split("; "):
        store._writer.execute(each)
    (problem,) = problems(store)
    assert re.search(found, problem)


def test_verify_finds_a_vector_of_another_length(store: Store) -> None:
    added(store, "a")
    assert store._writer is not None
    store._writer.execute("UPDATE vectors SET vector=x'00000000'")
    first, second = problems(store)
    assert "checksum differs" in first
    assert "Row 1 (transcript, media item 'video', segment 'a') has a vector of 4 bytes" in second


def test_vectors_that_are_missing_or_of_another_length_are_damage(store: Store) -> None:
    added(store, "a", "b")
    with store.reading() as reader:
        with pytest.raises(StoreDamaged, match="first for row 9"):
            reader.vectors([1, 9], DIMENSION)
        with pytest.raises(StoreDamaged, match="no vector of 8 dimensions for 2"):
            reader.vectors([1, 2], 8)


def test_text_that_is_not_utf8_is_damage(store: Store) -> None:
    added(store, "a")
    assert store._writer is not None
    store._writer.execute("UPDATE segments SET text=CAST(x'ff41' AS TEXT)")
    with pytest.raises(StoreDamaged, match="UTF-8"):
        names_in(store)
