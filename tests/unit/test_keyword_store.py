"""The store's keyword tables: brought to older stores, checked, and salvaged around."""

import os
import signal
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from folder_samples import execute
from storage_samples import FRAME, MODEL, TRANSCRIPT, find, segment, store_segments, vectors_of

from deployments.core.errors import StoreDamaged, StoreError
from deployments.core.folders.backup import back_up
from deployments.core.folders.folder_verify import verify_folder
from deployments.core.folders.salvaged_index import SalvagedIndex
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.pace import Pace
from deployments.core.segments import Hit, Search, SearchMode
from deployments.core.storage import keyword_sql, schema_sql

NEW = ("DROP TABLE keyword_places", "DROP TABLE keywords", "DROP TABLE keyword_lengths")
NEWER = [
    f"DROP TABLE {name}"
    for name in ("standby_vectors", "standby_marks", "standby_models", "former_models")
]


def search(index: SegmentIndex | SalvagedIndex, text: str, mode: str = "keyword") -> list[Hit]:
    wanted = Search(TRANSCRIPT, 100, mode=SearchMode(mode), text=text)
    (hits,) = index.search([wanted], vectors_of([text]))
    return hits


@pytest.fixture
def folder(folder: Path) -> Path:
    with SegmentIndex.open(folder, MODEL) as index:
        store_segments(index, 1, segment("a", "S&P 500"), segment("b", "the 10-K"), segment("c"))
        store_segments(index, 2, segment("a", "S&P again"), kind=FRAME)
        store_segments(index, 1, segment("b", "another 10-K"))
    return folder


@pytest.fixture
def first_format(folder: Path) -> Path:
    """The folder as the first version of this service left it."""
    execute(folder, *NEW, *NEWER)
    execute(folder, "UPDATE meta SET value=1 WHERE key='format'")
    return folder


def tables(folder: Path) -> set[str]:
    with closing(sqlite3.connect(folder / "store.sqlite3")) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def test_a_store_of_the_first_format_is_whole(first_format: Path, target: Path) -> None:
    assert "keywords" not in tables(first_format)
    assert verify_folder(first_format).problems == []
    back_up(first_format, target)
    assert verify_folder(target).problems == []


def test_a_store_of_the_first_format_becomes_searchable(first_format: Path) -> None:
    for again in (False, True):
        with SegmentIndex.open(first_format, MODEL) as index:
            assert [hit.segment.id for hit in search(index, "10-K")] == ["b"]
            assert [hit.segment.id for hit in search(index, "S&P")] == ["a"]
            assert index.stats().rebuilt == {}
            assert index.verify() == []
            assert index.delete_media(2) == (0 if again else 1)
    assert verify_folder(first_format).problems == []
    assert tables(first_format) >= {"keywords", "keyword_lengths", "keyword_places"}


def test_a_store_of_an_older_analyser_gets_its_terms_anew(folder: Path) -> None:
    execute(
        folder,
        "DELETE FROM keywords WHERE rowid=1",
        "INSERT INTO keywords (rowid, transcript) VALUES (1, 'an older analyser')",
        "UPDATE keyword_lengths SET terms=3 WHERE seq=1",
        "UPDATE meta SET value=3 WHERE key='format'",
    )
    assert verify_folder(folder).problems == []
    with SegmentIndex.open(folder, MODEL) as index:
        assert [hit.segment.id for hit in search(index, "S&P")] == ["a"]
        assert search(index, "older analyser") == []
        assert index.verify() == []


@pytest.mark.parametrize("kill", [False, True])
def test_a_migration_that_ends_early_changes_nothing(
    first_format: Path, monkeypatch: pytest.MonkeyPatch, kill: bool
) -> None:
    add = keyword_sql.add

    def end_early(connection: sqlite3.Connection, kind: str, texts: object) -> None:
        add(connection, kind, texts)  # type: ignore[arg-type]
        if kind == FRAME:
            if kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise sqlite3.OperationalError("interrupted")

    before = tables(first_format)
    monkeypatch.setattr(keyword_sql, "add", end_early)
    if kill:
        child = os.fork()
        if child == 0:
            SegmentIndex.open(first_format, MODEL)
            os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    else:
        with pytest.raises(StoreError):
            SegmentIndex.open(first_format, MODEL)
    monkeypatch.undo()
    assert tables(first_format) == before
    assert verify_folder(first_format).problems == []
    with SegmentIndex.open(first_format, MODEL) as index:
        assert [hit.segment.id for hit in search(index, "10-K")] == ["b"]
        assert index.verify() == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("DELETE FROM keywords WHERE rowid=1", "The keywords of row 1 aren't those of its text."),
        ("DELETE FROM keyword_lengths WHERE seq=1", "The keywords of row 1 aren't"),
        ("UPDATE keyword_lengths SET terms=1 WHERE seq=1", "The keywords of row 1 aren't"),
        ("UPDATE keywords SET transcript='other' WHERE rowid=1", "The keywords of row 1 aren't"),
        ("INSERT INTO keyword_lengths VALUES (2, 3)", "keywords of row 2, which isn't there."),
        ("INSERT INTO keywords (rowid, clip) VALUES (2, 'x')", "keywords of row 2, which isn't"),
        (
            "UPDATE keywords_content SET c0='other 500 x y' WHERE id=1",
            "The index of keywords is wrong about 7 of its terms.",
        ),
        ("DELETE FROM keywords_data WHERE id > 100", "damaged"),
        ("DROP TABLE keyword_lengths", "definition of keyword_lengths isn't"),
    ],
)
def test_what_is_wrong_with_keywords_is_found(folder: Path, change: str, problem: str) -> None:
    execute(folder, change)
    problems = verify_folder(folder).problems
    assert any(problem in each for each in problems), problems


def test_keywords_that_are_missing_are_no_empty_answer(folder: Path) -> None:
    execute(folder, "DELETE FROM keyword_lengths WHERE seq=1")
    with SegmentIndex.open(folder, MODEL) as index:
        assert len(find(index)) == 3
        with pytest.raises(StoreDamaged, match="no keywords of row 1"):
            search(index, "S&P")
        assert index.damage.current is not None
        assert len(find(index)) == 3


def test_keywords_of_nothing_are_no_answer(folder: Path) -> None:
    execute(folder, "INSERT INTO keywords (rowid, transcript) VALUES (2, '500')")
    with (
        SegmentIndex.open(folder, MODEL) as index,
        pytest.raises(StoreDamaged, match="keywords of row 2, which isn't there"),
    ):
        search(index, "500")


def test_an_index_of_terms_that_can_t_be_read_is_damage(folder: Path) -> None:
    execute(folder, "DELETE FROM keywords_data WHERE id > 100")
    with SegmentIndex.open(folder, MODEL) as index:
        with pytest.raises(StoreDamaged, match="is damaged"):
            search(index, "500")
        assert len(find(index)) == 3


@pytest.mark.parametrize("changes", [["DELETE FROM keywords"], NEW, []])
def test_salvage_finds_words_without_the_tables(folder: Path, changes: list[str]) -> None:
    execute(folder, *changes)
    with SalvagedIndex.open(folder, MODEL) as index:
        assert [hit.segment.id for hit in search(index, "10-K")] == ["b"]
        assert len(search(index, "S&P 500", "hybrid")) == 3


def test_the_version_is_that_of_the_tables() -> None:
    assert set(schema_sql.MIGRATIONS) == set(range(1, schema_sql.FORMAT))


def test_the_background_check_notices(folder: Path) -> None:
    execute(folder, "UPDATE keyword_lengths SET terms=1 WHERE seq=1")
    with SegmentIndex.open(folder, MODEL) as index:
        index.check(Pace(threading.Event(), 1.0))
        assert index.damage.current is not None
        assert "The keywords of row 1 aren't" in index.damage.current.reason
        assert index.damage.current.rows == 1
