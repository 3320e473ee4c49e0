"""Filtered search of a SegmentIndex, against plain Python over all segments."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_segments import Draw, RandomContents
from search_reference import Stored, matches, ranking
from storage_samples import FRAME, MODEL, TRANSCRIPT, segment, store_segments, vector_of, vectors_of

from deployments.core.api.filter_schema import parsed
from deployments.core.errors import DeadlineExceeded, StoreDamaged
from deployments.core.folders.salvaged_index import SalvagedIndex
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.search import filtered_rows
from deployments.core.search.answers import Answer
from deployments.core.segments import (
    DeleteMedia,
    EmbeddingType,
    IndexType,
    Search,
    SearchMode,
    Segment,
    SegmentName,
)
from deployments.core.storage.folder_lock import FolderLock
from deployments.core.vectors import collection, main_part_types
from deployments.core.vectors.index_policy import IndexPolicy, Limits

TYPES = [IndexType.FLAT, IndexType.HNSW, IndexType.IVF, IndexType.RABITQ, IndexType.PQ]


def search_of(draw: Draw, wanted: dict[str, Any]) -> Search:
    return Search(
        TRANSCRIPT,
        draw.one((1, 2, 5, 10, 1000)),
        draw.one((0.0, 0.0, 0.0, 0.1, 0.4)),
        draw.one((True, False)),
        draw.one(list(SearchMode)),
        draw.text(),
        filter=parsed(wanted),
    )


def check(
    index: SegmentIndex | SalvagedIndex, everything: list[Stored], draw: Draw, requests: int
) -> None:
    """Some random searches, in one call, find what they must, in order and with its scores."""
    wanted = [draw.filter() for _ in range(requests)]
    searches = [search_of(draw, each) for each in wanted]
    answers = index.reads.answer(searches, vectors_of(each.text for each in searches))
    for search, form, answer in zip(searches, wanted, answers, strict=True):
        check_answer(everything, search, form, answer)


def check_answer(
    everything: list[Stored], search: Search, form: dict[str, Any] | None, answer: Answer
) -> None:
    query = vector_of(search.text)
    most = max(100, search.top_k)
    ranked = ranking(everything, search.text, query, search.mode, form, most=most)
    similar = [each for each in ranked if max(0.0, each.cosine) >= search.min_similarity]
    expected = similar[: search.top_k]
    assert answer.exhausted == (form is not None and len(similar) < search.top_k), form
    found = {hit.sequence: (hit.media_item_id, hit.segment) for hit in answer.hits}
    assert len(found) == len(expected)
    if search.mode == SearchMode.SEMANTIC:
        assert list(found.values()) == [
            (each.stored.media_item_id, each.stored.segment) for each in expected
        ]
        assert [hit.cosine for hit in answer.hits] == [each.cosine for each in expected]
        return
    # Sums of other orders may tell ties apart.
    scores = [hit.score for hit in answer.hits]
    assert scores == pytest.approx([each.score for each in expected], abs=1e-9)
    by_text = {each.stored.segment.text: each for each in ranked}
    for hit in answer.hits:
        match = by_text[hit.segment.text]
        assert (match.stored.media_item_id, match.stored.segment) == found[hit.sequence]
        assert (hit.cosine, hit.score) == (match.cosine, pytest.approx(match.score, abs=1e-9))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1))
def test_any_filter_after_any_writes_finds_what_matches(memory_folder: Path, seed: int) -> None:
    draw = Draw(seed)
    with (
        tempfile.TemporaryDirectory(dir=memory_folder) as folder,
        SegmentIndex.open(folder, MODEL) as index,
    ):
        contents = RandomContents(index, draw)
        for _ in range(6):
            contents.write(draw.one((1, 5, 12)))
            check(index, contents.everything, draw, 6)


@pytest.fixture(scope="module", params=TYPES)
def in_two_parts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[SegmentIndex, list[Stored]]]:
    """An index of each type with rows in a main part, rows after it and deleted ones."""
    draw = Draw(0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(main_part_types, "CANDIDATES", dict.fromkeys(IndexType, 4))
        patched.setattr(collection, "_COMPACT_ROWS", 1000)
        policy = IndexPolicy({TRANSCRIPT: request.param}, Limits(least_rows=250))
        folder = tmp_path_factory.mktemp("index")
        with SegmentIndex.open(folder, MODEL, policy=policy) as index:
            contents = RandomContents(index, draw)
            for _ in range(20):
                contents.write(40)
            assert index.wait_for_builds(60)
            for _ in range(4):
                contents.write(5)
            state = index.stats().indices[TRANSCRIPT]
            if request.param is not IndexType.FLAT:
                assert (state.type, state.main_rows > 250) == (request.param, True)
            yield index, contents.everything


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1))
def test_filtered_search_is_exact_in_every_type_of_index(in_two_parts: Any, seed: int) -> None:
    index, everything = in_two_parts
    check(index, everything, Draw(seed), 4)


def found(index: SegmentIndex, form: dict[str, Any], kind: EmbeddingType = TRANSCRIPT) -> list[Any]:
    (answer,) = index.reads.answer([Search(kind, 1000, filter=parsed(form))], vectors_of(["x"]))
    assert answer.exhausted
    return sorted(hit.segment.id for hit in answer.hits)


@pytest.fixture
def course(index: SegmentIndex) -> SegmentIndex:
    parts = [
        Segment(
            "a", "one", 0, 5, {"ticker": "SPY", "views": 10, "tags": ["rsi", 70], "live": True}
        ),
        Segment("b", "two", 5, 9.5, {"ticker": "1", "views": 2.5, "who": [{"n": "A"}, {"n": "B"}]}),
        Segment("c", "three", 20, None, {"ticker": 1, "views": "10", "live": 1, "note": None}),
        Segment("d", "four", None, None, {"ticker": "spy", "levels": {"support": 400}}),
    ]
    store_segments(index, 1, *parts)
    store_segments(index, "intro", segment("e", ticker="QQQ"))
    store_segments(index, 1, segment("f", ticker="SPY"), kind=FRAME)
    return index


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ({"ticker": "SPY"}, "a"),
        ({"ticker": 1}, "c"),
        ({"ticker": "1"}, "b"),
        ({"ticker": {"$ne": "SPY"}}, "bcde"),
        ({"ticker": {"$in": ["SPY", 1, "QQQ"]}}, "ace"),
        ({"ticker": {"$in": []}}, ""),
        ({"ticker": {"$nin": []}}, "abcde"),
        ({"views": {"$gte": 2.5}}, "ab"),
        ({"views": {"$gt": 2.5, "$lte": 10}}, "a"),
        ({"views": {"$gte": "10"}}, "c"),
        ({"live": True}, "a"),
        ({"live": 1}, "c"),
        ({"tags": "rsi"}, "a"),
        ({"tags": {"$gte": 70}}, "a"),
        ({"tags": {"$ne": "rsi"}}, "bcde"),
        ({"who.n": "B"}, "b"),
        ({"levels.support": {"$lt": 500}}, "d"),
        ({"levels": {"$exists": True}}, "d"),
        ({"note": {"$exists": True}}, ""),
        ({"views": {"$exists": False}}, "de"),
        ({"media_item_id": "1"}, "abcd"),
        ({"media_item_id": {"$nin": [1]}}, "e"),
        ({"segment_id": {"$in": ["a", "e"]}}, "ae"),
        ({"$time": {"from": 5, "to": 5}}, "ab"),
        ({"$time": {"from": 10}}, "c"),
        ({"$time": {"to": 1}}, "ae"),
        ({"$not": {"$time": {"from": 0}}}, "d"),
        ({"end_time": {"$exists": False}}, "cd"),
        ({"start_time": {"$gte": 1, "$lt": 20}}, "be"),
        ({"$or": [{"ticker": "QQQ"}, {"views": 10}], "media_item_id": 1}, "a"),
        ({"$not": {"$or": [{"ticker": "QQQ"}, {"views": 10}]}}, "bcd"),
    ],
)
def test_what_each_condition_finds(course: SegmentIndex, form: dict[str, Any], names: str) -> None:
    assert "".join(found(course, form)) == names


def test_each_type_has_its_own_rows(course: SegmentIndex) -> None:
    assert found(course, {"ticker": "SPY"}, FRAME) == ["f"]
    assert found(course, {"ticker": "SPY"}) == ["a"]


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE segments; --", '"', "%", "a\\", "'$", "?1", "🎉", "a b", "[0]", "#-1"]
)
def test_no_value_and_no_name_is_syntax(index: SegmentIndex, text: str) -> None:
    store_segments(index, text, Segment(text, "x", metadata={text: text, "in": {text: [text]}}))
    store_segments(index, "other", segment("y", other="z"))
    for form in (
        {text: text},
        {f"in.{text}": text},
        {text: {"$gte": text}},
        {"media_item_id": text},
        {"segment_id": text},
    ):
        assert found(index, form) == [text]


def test_what_matched_is_kept_and_completed(
    index: SegmentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filtered_rows, "_MOST_FILTERS", 2)
    monkeypatch.setattr(filtered_rows, "_MOST_BYTES", 500)
    forms = [{"n": {"$gte": least}} for least in range(4)]
    for last in range(12):
        store_segments(index, last % 3, segment(last, n=last % 4))
        for least in (0, 1, 2, 3, 3, 0):
            assert found(index, forms[least]) == [
                each for each in range(last + 1) if each % 4 >= least
            ]
    index.apply([DeleteMedia(0)])
    assert found(index, forms[2]) == [each for each in range(12) if each % 4 >= 2 and each % 3]


def test_what_is_kept_is_limited_by_the_filters_too(index: SegmentIndex) -> None:
    """Filters of a megabyte each that match nothing push each other out."""
    store_segments(index, 1, segment("a", n=1))
    forms = [{"n": {"$in": [f"{i} {j}".ljust(1000, "x") for j in range(1000)]}} for i in range(9)]
    for form in forms:
        assert found(index, form) == []
    kept = list(index.reads._filters._known)
    assert kept == [(TRANSCRIPT, parsed(form)) for form in forms[-len(kept) :]]
    assert 1 < len(kept) < len(forms)
    assert found(index, {"n": 1}) == ["a"]


def test_a_filter_that_takes_too_long_is_given_up(
    index: SegmentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filtered_rows, "_STEPS_BETWEEN_LOOKS", 100)
    store_segments(index, 1, *(segment(i, tags=[i, [i]]) for i in range(200)))
    searches = [Search(TRANSCRIPT, 1000), Search(TRANSCRIPT, 1000, filter=parsed({"tags": 7}))]
    queries, late = vectors_of(["x", "x"]), time.monotonic()
    everything, filtered = index.reads.answer(searches, queries, until=late)
    assert sorted(hit.segment.id for hit in everything.hits) == list(range(200))
    assert (everything.failure, filtered.hits) == (None, [])
    similar = index.reads.similar(SegmentName(TRANSCRIPT, 1, 7), searches[1], until=late)
    for answer in (filtered, similar):
        assert isinstance(answer.failure, DeadlineExceeded)
        assert "took too long over all transcript segments; name media" in answer.failure.detail
    assert found(index, {"tags": 7}) == [7]
    # What is known, and what has no filter, isn't late.
    everything, filtered = index.reads.answer(searches, queries, until=late)
    assert sorted(hit.segment.id for hit in everything.hits) == list(range(200))
    assert [hit.segment.id for hit in filtered.hits] == [7]


def test_an_older_reader_sees_what_was_there(index: SegmentIndex) -> None:
    """What a newer reader has kept lacks rows that an older one can see."""
    store_segments(index, 1, segment("a", n=1), segment("b", n=2))
    wanted = parsed({"n": {"$exists": True}})
    assert wanted is not None
    with index._store.reading() as reader:
        reader.commit_id()
        snapshot = index._published.current.snapshots[TRANSCRIPT]
        store_segments(index, 1, segment("a", n=3))
        assert found(index, {"n": {"$exists": True}}) == ["a", "b"]
        filters = index.reads._filters
        assert filters.among(reader, TRANSCRIPT, snapshot, wanted).live_sequences().tolist() == [
            1,
            2,
        ]
    assert found(index, {"n": {"$exists": True}}) == ["a", "b"]


def test_metadata_that_cannot_be_read_is_damage(index: SegmentIndex) -> None:
    store_segments(index, 1, segment("a", n=1), segment("b", n=2))
    with index._store.transaction() as writer:
        writer.changed = False
        writer.connection.execute("UPDATE segments SET metadata='{\"n\": ' WHERE seq=2")
        writer.connection.execute("COMMIT")
        writer.connection.execute("BEGIN")
    with pytest.raises(StoreDamaged, match="malformed JSON"):
        found(index, {"n": 1})
    assert index.stats().damage is not None


def test_a_forged_row_is_no_result(index: SegmentIndex) -> None:
    store_segments(index, 1, segment("a", n=1), segment("b", n=2))
    with index._store.transaction() as writer:
        writer.connection.execute("UPDATE segments SET metadata='{\"n\":1}' WHERE seq=2")
        writer.connection.execute("COMMIT")
        writer.connection.execute("BEGIN")
    with pytest.raises(StoreDamaged, match="Row 2"):
        found(index, {"n": 1})


@pytest.mark.parametrize("seed", range(3))
def test_what_is_salvaged_can_be_filtered(folder: Path, seed: int) -> None:
    draw = Draw(seed)
    with SegmentIndex.open(folder, MODEL) as index:
        contents = RandomContents(index, draw)
        for _ in range(8):
            contents.write(12)
    with SalvagedIndex.open(folder, MODEL, FolderLock(folder)) as salvaged:
        for _ in range(10):
            check(salvaged, contents.everything, draw, 5)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_equal_filters_are_one_key(seed: int) -> None:
    draw = Draw(seed)
    form = draw.filter()
    again = respelled(form, draw)
    assert parsed(form) == parsed(again)
    assert hash(parsed(form)) == hash(parsed(again))
    assert repr(parsed(form)) == repr(parsed(again))


def respelled(form: Any, draw: Draw, ids: bool = False) -> Any:
    """The same filter with its conditions and values in another order, and 1.0 for 1."""
    match form:
        case dict():
            items = [
                (name, respelled(each, draw, ids or name.endswith("_id")))
                for name, each in form.items()
            ]
            return dict(draw.random.sample(items, len(items)))
        case list():
            return [respelled(each, draw, ids) for each in draw.random.sample(form, len(form))]
        case int() if not isinstance(form, bool) and abs(form) < 2**53 and not ids:
            return draw.one((form, float(form)))
    return form


def test_one_and_true_are_different_keys() -> None:
    assert parsed({"a": 1}) != parsed({"a": True})
    assert parsed({"a": {"$in": [0, "b"]}}) == parsed({"a": {"$in": ["b", 0, 0]}})
    assert parsed({"media_item_id": 1}) == parsed({"media_item_id": "1"})


def test_the_reference_knows_lists_and_nulls() -> None:
    stored = Stored(1, 1, Segment(1, "x", None, 3, {"a": [[1, None], {"b": "c"}]}), vector_of("x"))
    for form, expected in (
        ({"a": 1}, True),
        ({"a": True}, False),
        ({"a.b": "c"}, True),
        ({"a": {"$exists": True}}, True),
        ({"a": {"$gt": 1}}, False),
        ({"$time": {"from": 3}}, True),
        ({"$time": {"to": 2}}, False),
    ):
        assert matches(form, stored) == expected
