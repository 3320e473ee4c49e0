"""Pages, groups and near-duplicates, against one walk down a ranking of everything."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_segments import Draw, RandomContents
from search_reference import Ranked, Stored, ranking, walk
from storage_samples import (
    MODEL,
    TRANSCRIPT,
    random_units,
    segment,
    store_segments,
    unit,
    vector_of,
    vectors_of,
)

from deployments.core.api.filter_schema import parsed
from deployments.core.errors import DeadlineExceeded, InvalidInput
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.search import arrangement, cursors, deep_ranking
from deployments.core.search.answers import Answer
from deployments.core.segments import DeleteMedia, Hit, Search, SearchMode
from deployments.core.shapes import Position, Shape

DEPTH = 6
KEY = "of this search"


@pytest.fixture(autouse=True, scope="module")
def small_numbers() -> Iterator[None]:
    """So few rows at first that rankings go deeper, and fewer candidates than rows."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(arrangement, "_FIRST_DEPTH", 1)
        patched.setattr(arrangement, "_DEEPER", 2)
        patched.setattr(arrangement, "_BLOCK", 3)
        patched.setattr(deep_ranking, "DEPTH", DEPTH)
        yield


def ask(index: SegmentIndex, search: Search) -> Answer:
    (answer,) = index.reads.answer([search], vectors_of([search.text]))
    return answer


def ranked_of(
    everything: list[Stored], search: Search, form: dict[str, Any] | None
) -> list[Ranked]:
    query = vector_of(search.text)
    return ranking(everything, search.text, query, search.mode, form, DEPTH)


def told(hit: Hit) -> tuple[Any, ...]:
    return (hit.media_item_id, hit.segment, hit.cosine, hit.score)


def expected(each: Ranked, mode: SearchMode) -> tuple[Any, ...]:
    score = None if mode == SearchMode.SEMANTIC else each.score
    return (each.stored.media_item_id, each.stored.segment, each.cosine, score)


def options(search: Search) -> dict[str, Any]:
    shape = search.shape
    assert shape is not None
    return {
        "in_groups": shape.in_groups,
        "group_size": shape.group_size,
        "duplicate_cosine": shape.duplicate_cosine,
        "min_similarity": search.min_similarity,
    }


def check_groups(answer: Answer, groups: list[list[Ranked]], search: Search) -> None:
    assert search.shape is not None
    found = [[told(hit), *map(told, hit.others or ())] for hit in answer.hits]
    assert found == [[expected(each, search.mode) for each in group] for group in groups]
    assert all((hit.others is not None) == search.shape.in_groups for hit in answer.hits)


def search_of(draw: Draw, form: dict[str, Any] | None, **shape: Any) -> Search:
    in_groups = draw.one((True, False))
    return Search(
        TRANSCRIPT,
        draw.one((1, 2, 3, 7, 50)),
        draw.one((0.0, 0.0, 0.1, 0.4)),
        mode=draw.one(list(SearchMode)),
        text=draw.text(),
        explain=False,
        filter=None if form is None else parsed(form),
        shape=Shape(
            in_groups=in_groups,
            group_size=draw.one((1, 2, 5)) if in_groups else 1,
            duplicate_cosine=draw.one((None, None, 0.3, 0.6, 1.0)),
            **shape,
        ),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1))
def test_any_page_is_as_by_a_walk_down_everything(memory_folder: Path, seed: int) -> None:
    draw = Draw(seed)
    with (
        tempfile.TemporaryDirectory(dir=memory_folder) as folder,
        SegmentIndex.open(folder, MODEL) as index,
    ):
        contents = RandomContents(index, draw)
        for _ in range(4):
            contents.write(draw.one((1, 5, 12)))
            for _ in range(6):
                form = draw.one((None, draw.filter()))
                offset = draw.one((0, 1, 3, 20))
                search = search_of(draw, form, offset=offset)
                groups, _ = walk(
                    ranked_of(contents.everything, search, form),
                    groups=search.top_k,
                    passed=lambda begun, offset=offset: len(begun) > offset,
                    **options(search),
                )
                answer = ask(index, search)
                check_groups(answer, groups, search)
                assert answer.exhausted == (len(groups) < search.top_k)
                assert not answer.paged


def read_all(index: SegmentIndex, search: Search, between: Any) -> list[Answer]:
    """All pages by cursor, with something done between them."""
    assert search.shape is not None
    shape = replace(search.shape, cursor_key=KEY)
    answers: list[Answer] = []
    while True:
        answers.append(ask(index, replace(search, shape=shape)))
        assert answers[-1].paged
        if answers[-1].next_cursor is None:
            return answers
        shape = replace(shape, after=cursors.decoded(answers[-1].next_cursor, KEY))
        between()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1))
def test_pages_neither_repeat_nor_skip_while_others_store(memory_folder: Path, seed: int) -> None:
    draw = Draw(seed)
    with (
        tempfile.TemporaryDirectory(dir=memory_folder) as folder,
        SegmentIndex.open(folder, MODEL) as index,
    ):
        contents = RandomContents(index, draw)
        for _ in range(4):
            contents.write(draw.one((5, 12)))
        search = replace(search_of(draw, None), top_k=draw.one((1, 3, 8)))
        # What decides near-duplicates deep in a group depends on how far pages have come.
        if search.shape is not None and search.shape.in_groups:
            search = replace(search, shape=replace(search.shape, duplicate_cosine=None))
        before = ranked_of(contents.everything, search, None)
        new = iter(range(10_000))

        def store() -> None:
            # Some are better than all others: with the query's own words.
            texts = [f"{search.text} {next(new)}", search.text, f"other {next(new)}"]
            parts = [segment(f"new {next(new)}", text) for text in texts]
            store_segments(index, draw.one((1, "new")), *parts)

        answers = read_all(index, search, store)
        everything, _ = walk(before, groups=len(before) + 1, **options(search))
        check_groups(Answer([hit for answer in answers for hit in answer.hits]), everything, search)
        assert [len(answer.hits) for answer in answers[:-1]] == [search.top_k] * (len(answers) - 1)
        assert 0 <= len(answers[-1].hits) <= search.top_k


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1))
def test_pages_skip_nothing_that_stays_while_others_delete(memory_folder: Path, seed: int) -> None:
    draw = Draw(seed)
    with (
        tempfile.TemporaryDirectory(dir=memory_folder) as folder,
        SegmentIndex.open(folder, MODEL) as index,
    ):
        for media in range(6):
            parts = [segment(i, f"{draw.text()} {media} {i}") for i in range(5)]
            store_segments(index, media, *parts)
        gone: list[int] = []

        def change() -> None:
            if draw.one((True, False)):
                media = draw.random.randrange(6)
                gone.append(media)
                index.apply([DeleteMedia(media)])
                store_segments(index, media, segment(0, f"{draw.text()} again {len(gone)}"))

        search = Search(TRANSCRIPT, draw.one((1, 4)), text=draw.text(), shape=Shape())
        full = [hit.segment.text for hit in ask(index, replace(search, top_k=100)).hits]
        kept_until_read = [hit for answer in read_all(index, search, change) for hit in answer.hits]
        texts = [hit.segment.text for hit in kept_until_read]
        assert len(set(texts)) == len(texts)
        assert texts == [text for text in full if text in texts]
        missing = [text for text in full if text not in texts]
        assert all(any(f" {media} " in text for media in gone) for text in missing)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_a_group_comes_once_although_its_best_was_replaced(index: SegmentIndex, top_k: int) -> None:
    store_segments(index, 1, segment("best", "query"), segment("next", "zzz"))
    for media in range(2, 8):
        store_segments(index, media, segment("best", f"other {media}"), segment("next", "zzz"))
    search = Search(TRANSCRIPT, top_k, text="query", shape=Shape(in_groups=True))
    full = [hit.media_item_id for hit in ask(index, replace(search, top_k=100)).hits]
    replaced = iter(full)

    def replace_best() -> None:
        for _ in range(top_k):
            if (media := next(replaced, None)) is not None:
                store_segments(index, media, segment("best", f"anew {media}"))

    answers = read_all(index, search, replace_best)
    assert [hit.media_item_id for answer in answers for hit in answer.hits] == full
    assert all(answer.hits for answer in answers)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1))
def test_groups_come_once_and_all_that_stay_while_others_replace(
    memory_folder: Path, seed: int
) -> None:
    draw = Draw(seed)
    with (
        tempfile.TemporaryDirectory(dir=memory_folder) as folder,
        SegmentIndex.open(folder, MODEL) as index,
    ):
        for media in range(8):
            store_segments(index, media, *(segment(i, f"{media} {i}") for i in range(3)))
        touched: set[int] = set()

        def change() -> None:
            media = draw.random.randrange(8)
            touched.add(media)
            names = draw.random.sample(range(3), 2)
            store_segments(index, media, *(segment(i, draw.text()) for i in names))

        shape = Shape(in_groups=True, group_size=draw.one((1, 2)))
        search = Search(TRANSCRIPT, draw.one((1, 2, 3)), text=draw.text(), shape=shape)
        answers = read_all(index, search, change)
        names = [hit.media_item_id for answer in answers for hit in answer.hits]
        assert len(set(names)) == len(names)
        assert set(range(8)) - touched <= set(names)


def test_marks_of_shown_groups_are_bounded(
    index: SegmentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrangement, "_MOST_SHOWN", 3)
    for media in range(8):
        store_segments(index, media, segment(1, f"text {media}"))
    shape = Shape(in_groups=True, cursor_key=KEY)
    names: list[str] = []
    while True:
        answer = ask(index, Search(TRANSCRIPT, 2, text="query", shape=shape))
        names += [str(hit.media_item_id) for hit in answer.hits]
        if answer.next_cursor is None:
            break
        shape = replace(shape, after=cursors.decoded(answer.next_cursor, KEY))
        assert shape.after is not None
        assert shape.after.shown == tuple(cursors.mark_of(name) for name in names[-3:])
    assert sorted(names) == [str(media) for media in range(8)]


@pytest.mark.parametrize("mode", [SearchMode.SEMANTIC, SearchMode.HYBRID])
def test_pages_fit_although_an_encoder_rounds_anew(index: SegmentIndex, mode: SearchMode) -> None:
    """A query's vector may differ in its last digits from page to page."""
    store_segments(index, 1, *(segment(i, f"rsi {i}") for i in range(40)))
    shape, texts = Shape(cursor_key=KEY), []
    for noise in random_units(20, seed=7):
        query = unit(vector_of("rsi") + 1e-6 * noise)
        search = Search(TRANSCRIPT, 3, mode=mode, text="rsi", shape=shape)
        (answer,) = index.reads.answer([search], query[None])
        texts += [hit.segment.text for hit in answer.hits]
        if answer.next_cursor is None:
            break
        shape = replace(shape, after=cursors.decoded(answer.next_cursor, KEY))
    assert sorted(texts) == sorted(f"rsi {i}" for i in range(40))


def test_explanations_have_ranks(index: SegmentIndex) -> None:
    texts = ["rsi fell", "rsi", "yields fell", "risk"]
    store_segments(index, 1, *(segment(i, text) for i, text in enumerate(texts)))
    for mode in SearchMode:
        search = Search(TRANSCRIPT, 10, mode=mode, text="rsi fell", explain=True)
        plain, shaped = ask(index, search), ask(index, replace(search, shape=Shape()))
        assert [each.explanation for each in shaped.hits] == [
            each.explanation for each in plain.hits
        ]
        assert all(each.explanation is not None for each in shaped.hits)
        groups = ask(index, replace(search, shape=Shape(in_groups=True, group_size=2)))
        (best,) = groups.hits
        assert best.explanation == plain.hits[0].explanation
        assert best.others is not None
        assert [other.cosine for other in best.others] == [plain.hits[1].cosine]


@pytest.mark.parametrize("mode", list(SearchMode))
def test_a_cursor_is_of_the_model_whose_vectors_were_ranked(
    index: SegmentIndex, mode: SearchMode
) -> None:
    store_segments(index, 1, *(segment(i, f"rsi {i}") for i in range(5)))
    shape = Shape(cursor_key=KEY)
    search = Search(TRANSCRIPT, 2, mode=mode, text="rsi", shape=shape)
    cursor = ask(index, search).next_cursor
    assert cursor is not None
    position = cursors.decoded(cursor, KEY)
    assert position is not None
    assert position.model == cursors.mark_of(MODEL.fingerprint)
    of_another = replace(shape, after=replace(position, model=cursors.mark_of("another")))
    answers = index.reads.answer(
        [replace(search, shape=of_another), search], vectors_of(["rsi", "rsi"])
    )
    assert isinstance(answers[0].failure, InvalidInput)
    assert "changed to another model since the page before" in answers[0].failure.detail
    assert answers[1].failure is None
    assert len(answers[1].hits) == 2


def test_a_page_that_takes_too_long_is_given_up_and_others_are_not(index: SegmentIndex) -> None:
    store_segments(index, 1, *(segment(i, f"rsi {i}") for i in range(5)))
    plain = Search(TRANSCRIPT, 2, text="rsi")
    deep = replace(plain, shape=Shape(offset=3, duplicate_cosine=0.95))
    answers = index.reads.answer([deep, plain], vectors_of(["rsi", "rsi"]), until=monotonic() - 1)
    assert isinstance(answers[0].failure, DeadlineExceeded)
    assert "by cursor instead of a large offset" in answers[0].failure.detail
    assert len(answers[1].hits) == 2


def test_exact_copies_are_duplicates_at_a_cosine_of_one(index: SegmentIndex) -> None:
    for media in range(3):
        store_segments(index, media, segment("same", "the same"), segment("own", f"own {media}"))
    search = Search(TRANSCRIPT, 10, text="x", shape=Shape(duplicate_cosine=1.0))
    found = [hit.segment.text for hit in ask(index, search).hits]
    assert sorted(found) == ["own 0", "own 1", "own 2", "the same"]


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "é", "=", "a" * 500, "W10", "e30", "bnVsbA", "WzEsMiwzLDQsNV0"],
)
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInput, match="cursor is none that this service gave"):
        cursors.decoded(cursor, KEY)


@given(
    as_of=st.integers(0, 2**63 - 1),
    score=st.floats(allow_nan=False, allow_infinity=False),
    sequence=st.integers(0, 2**63 - 1),
    media=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5),
)
def test_a_cursor_leads_to_its_position_in_its_own_search(
    as_of: int, score: float, sequence: int, media: list[str]
) -> None:
    position = Position(as_of, score, sequence, tuple(map(cursors.mark_of, media)))
    cursor = cursors.encoded(KEY, position)
    assert cursors.decoded(cursor, KEY) == position
    assert len(cursor) < 200 + 11 * len(media)
    with pytest.raises(InvalidInput, match="cursor is of another request"):
        cursors.decoded(cursor, "of another one")
    with pytest.raises(InvalidInput):
        cursors.decoded(cursor[:-3], KEY)


@given(st.text())
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    if text != cursors.FIRST:
        with pytest.raises(InvalidInput):
            cursors.decoded(text, KEY)
