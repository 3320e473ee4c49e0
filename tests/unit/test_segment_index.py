import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage_samples import (
    CLIP,
    DIMENSION,
    FRAME,
    MODELS,
    TRANSCRIPT,
    find,
    segment,
    store_segments,
    stored,
    unit,
    upsert_of,
    vector_of,
    vectors_of,
    with_vectors,
)

from deployments.core.errors import InvalidInput, NotReady
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import (
    DeleteMedia,
    Hit,
    IndexStats,
    Search,
    Segment,
    Upsert,
    UpsertResult,
)
from deployments.core.storage.store_writer import StoreWriter


def apply(index: SegmentIndex, operation: Upsert | DeleteMedia) -> object:
    (outcome,) = index.apply([operation])
    return outcome


def sequences(index: SegmentIndex) -> dict[object, int]:
    return {hit.segment.id: hit.sequence for hit in find(index)}


def test_what_was_stored_is_found_with_everything(index: SegmentIndex) -> None:
    wanted = Segment(7, "RSI is above 70", 3, 7.5, {"ticker": "SPY", "tags": ["a", {"b": None}]})
    result = store_segments(index, "video-1", wanted, segment(8))
    assert result == UpsertResult(stored=2, changed=2)
    hits = find(index, "RSI is above 70", top_k=2)
    other = float(vector_of("text of 8").astype(float) @ vector_of("RSI is above 70").astype(float))
    assert hits == [
        Hit(1.0, 1, "video-1", wanted),
        Hit(pytest.approx(other, abs=1e-6), 2, "video-1", segment(8)),
    ]


def test_an_empty_index(index: SegmentIndex) -> None:
    assert find(index) == []
    assert index.search([], np.empty((0, DIMENSION), np.float32)) == []
    assert index.apply([]) == []
    nothing = dict.fromkeys((TRANSCRIPT, FRAME, CLIP), 0)
    assert index.stats() == IndexStats(MODELS, nothing, 0, {})


def test_types_are_apart(index: SegmentIndex) -> None:
    store_segments(index, 1, segment("a", "same"))
    store_segments(index, 1, segment("a", "same", path="x.png"), kind=FRAME)
    assert stored(index) == {(1, "a"): segment("a", "same")}
    assert stored(index, FRAME) == {(1, "a"): segment("a", "same", path="x.png")}
    assert stored(index, CLIP) == {}
    assert index.stats().vectors == {TRANSCRIPT: 1, FRAME: 1, CLIP: 0}


def test_segments_without_vectors_are_named_and_nothing_is_applied(index: SegmentIndex) -> None:
    store_segments(index, 1, segment("a"))
    request = Upsert(TRANSCRIPT, 1, (segment("new"), segment("a"), segment("b")), replace=True)
    assert apply(index, request) == UpsertResult(missing=(0, 2))
    assert stored(index) == {(1, "a"): segment("a")}
    completed = replace(request, vectors=vectors_of(["text of new"]), vector_positions=(0,))
    assert apply(index, completed) == UpsertResult(missing=(2,))
    assert stored(index) == {(1, "a"): segment("a")}
    assert apply(index, with_vectors(request)) == UpsertResult(stored=3, changed=2)


def test_the_same_request_again_writes_nothing(index: SegmentIndex) -> None:
    request = upsert_of(1, segment("a"), segment("b", x=[1, 2.0, None]))
    first = apply(index, request)
    before = (index.stats(), sequences(index), index._store.store_id)
    with index._store.reading() as reader:
        commit = reader.commit_id()
    bare = replace(request, vectors=None, vector_positions=())
    for again in (request, bare, replace(bare, replace=True)):
        assert apply(index, again) == UpsertResult(stored=2, changed=0)
    assert first == UpsertResult(stored=2, changed=2)
    assert (index.stats(), sequences(index), index._store.store_id) == before
    with index._store.reading() as reader:
        assert reader.commit_id() == commit


@pytest.mark.parametrize(
    "change",
    [
        {"start_time": 1.0},
        {"start_time": None},
        {"end_time": 3},
        {"metadata": {"x": 1.0}},
        {"metadata": {}},
        {"id": "1"},
    ],
)
def test_a_change_beside_the_text_keeps_the_vector(
    index: SegmentIndex, change: dict[str, Any]
) -> None:
    before = segment(1, "text", x=1)
    store_segments(index, "m", before, segment(2))
    after = replace(before, **change)
    assert apply(index, Upsert(TRANSCRIPT, "m", (after,))) == UpsertResult(stored=1, changed=1)
    hit = find(index, "text", 1)[0]
    assert (hit.cosine, hit.segment) == (1.0, after)
    for name in ("id", "start_time", "end_time"):
        assert type(getattr(hit.segment, name)) is type(getattr(after, name))
    assert repr(hit.segment.metadata) == repr(after.metadata)
    assert len(find(index)) == 2
    assert hit.sequence == 3


def test_a_new_text_replaces_the_vector(index: SegmentIndex) -> None:
    store_segments(index, 1, segment("a", "old"))
    request = Upsert(TRANSCRIPT, 1, (segment("a", "new"),))
    assert apply(index, request) == UpsertResult(missing=(0,))
    assert store_segments(index, 1, segment("a", "new")) == UpsertResult(stored=1, changed=1)
    assert [(hit.cosine, hit.segment.text) for hit in find(index, "new")] == [(1.0, "new")]
    assert find(index, "old", min_similarity=0.999) == []


def test_ids_one_and_text_one_are_the_same(index: SegmentIndex) -> None:
    store_segments(index, 1, segment(1), segment("2"))
    assert apply(index, Upsert(TRANSCRIPT, "1", (segment("1", "text of 1"),))) == UpsertResult(
        stored=1, changed=1
    )
    # Each segment comes back in the form in which it was last stored itself.
    assert set(stored(index)) == {("1", "1"), (1, "2")}
    assert apply(index, DeleteMedia("1")) == 2
    store_segments(index, "01", segment(1))
    assert set(stored(index)) == {("01", 1)}
    assert apply(index, DeleteMedia(1)) == 0


def test_texts_that_moved_to_other_ids_keep_their_vectors(index: SegmentIndex) -> None:
    texts = ["one", "two", "three", "four"]
    store_segments(index, 1, *(segment(i, text) for i, text in enumerate(texts)))
    shifted = tuple(segment(i, text) for i, text in enumerate(["zero", *texts]))
    request = Upsert(TRANSCRIPT, 1, shifted, replace=True)
    assert apply(index, request) == UpsertResult(missing=(0,))
    completed = replace(request, vectors=vectors_of(["zero"]), vector_positions=(0,))
    assert apply(index, completed) == UpsertResult(stored=5, changed=5)
    for text in ["zero", *texts]:
        hit = find(index, text, 1)[0]
        assert (hit.cosine, hit.segment.text) == (1.0, text)
    assert {each.id: each.text for each in stored(index).values()} == dict(
        enumerate(["zero", *texts])
    )


def test_vectors_are_not_taken_from_other_media_items_or_types(index: SegmentIndex) -> None:
    store_segments(index, 1, segment("a", "same"))
    for request in (
        Upsert(TRANSCRIPT, 2, (segment("a", "same"),)),
        Upsert(FRAME, 1, (segment("a", "same"),)),
    ):
        assert apply(index, request) == UpsertResult(missing=(0,))


def test_one_vector_serves_equal_texts_of_a_request(index: SegmentIndex) -> None:
    request = Upsert(
        TRANSCRIPT,
        1,
        (segment("a", "music"), segment("b", "music")),
        vectors=vectors_of(["music"]),
        vector_positions=(1,),
        truncated_positions=(1,),
    )
    assert apply(index, request) == UpsertResult(stored=2, changed=2, truncated=2)
    assert [(hit.cosine, hit.sequence) for hit in find(index, "music")] == [(1.0, 1), (1.0, 2)]


def test_a_vector_given_for_a_segment_is_its_vector(index: SegmentIndex) -> None:
    # An imported index may lack texts: equal texts must not lend their vectors then.
    vectors = vectors_of(["x", "y", "z"])
    segments = tuple(segment(i, "") for i in range(3))
    request = Upsert(TRANSCRIPT, 1, segments, vectors=vectors, vector_positions=(0, 1, 2))
    assert apply(index, request) == UpsertResult(stored=3, changed=3)
    assert [find(index, text, 1)[0].segment.id for text in "xyz"] == [0, 1, 2]


def test_truncation_is_remembered(index: SegmentIndex) -> None:
    request = upsert_of(1, segment("a"), segment("b"), segment("c"))
    encoded = replace(request, truncated_positions=(0, 2))
    assert apply(index, encoded) == UpsertResult(stored=3, changed=3, truncated=2)
    bare = Upsert(TRANSCRIPT, 1, request.segments)
    assert apply(index, bare) == UpsertResult(stored=3, truncated=2)
    changed = Upsert(TRANSCRIPT, 1, (segment("a", x=1), segment("b", x=2)))
    assert apply(index, changed) == UpsertResult(stored=2, changed=2, truncated=1)
    moved = Upsert(TRANSCRIPT, 1, (segment("d", "text of c"), segment("b", x=1)), replace=True)
    assert apply(index, moved) == UpsertResult(stored=2, changed=2, removed=2, truncated=1)


def test_replace_leaves_the_request_s_segments_only(index: SegmentIndex) -> None:
    store_segments(index, 1, segment("a"), segment("b"), segment("c"))
    store_segments(index, 2, segment("a"))
    store_segments(index, 1, segment("a"), kind=FRAME)
    result = store_segments(index, 1, segment("b"), segment("d"), replace=True)
    assert result == UpsertResult(stored=2, changed=1, removed=2)
    assert set(stored(index)) == {(1, "b"), (1, "d"), (2, "a")}
    assert set(stored(index, FRAME)) == {(1, "a")}
    assert apply(index, Upsert(TRANSCRIPT, 1, (), replace=True)) == UpsertResult(removed=2)
    assert set(stored(index)) == {(2, "a")}


def test_delete_media(index: SegmentIndex) -> None:
    for kind in (TRANSCRIPT, FRAME, CLIP):
        store_segments(index, 1, segment("a"), segment("b"), kind=kind)
        store_segments(index, 2, segment("a"), kind=kind)
    assert index.delete_media(1, FRAME) == 2
    assert index.delete_media(1) == 4
    assert index.delete_media(1) == 0
    assert index.stats().vectors == {TRANSCRIPT: 1, FRAME: 1, CLIP: 1}
    with pytest.raises(InvalidInput, match=r"media_item_id is 1\.5"):
        index.delete_media(1.5)  # type: ignore[arg-type]


def test_operations_of_a_group_see_each_other(index: SegmentIndex) -> None:
    outcomes = index.apply(
        [
            upsert_of(1, segment("a"), segment("b")),
            Upsert(TRANSCRIPT, 1, (segment("c", "text of a"),)),
            upsert_of(1, segment("a", "new"), replace=True),
            Upsert(TRANSCRIPT, 1, (segment("a", "new"),)),
            DeleteMedia(2),
            upsert_of(2, segment("x")),
            DeleteMedia(2),
            Upsert(TRANSCRIPT, 2, (segment("x"),)),
        ]
    )
    assert outcomes == [
        UpsertResult(stored=2, changed=2),
        UpsertResult(stored=1, changed=1),
        UpsertResult(stored=1, changed=1, removed=2),
        UpsertResult(stored=1),
        0,
        UpsertResult(stored=1, changed=1),
        1,
        UpsertResult(missing=(0,)),
    ]
    assert stored(index) == {(1, "a"): segment("a", "new")}
    assert index.verify() == []


def test_a_group_that_cancels_itself_out(index: SegmentIndex) -> None:
    assert index.apply([upsert_of(1, segment("a")), DeleteMedia(1)])[1] == 1
    assert stored(index) == {}
    assert store_segments(index, 1, segment("a")) == UpsertResult(stored=1, changed=1)


def test_a_wrong_operation_leaves_the_others_alone(index: SegmentIndex) -> None:
    wrong = upsert_of(1, segment("a"), segment("nan", x=math.nan), replace=True)
    outcomes = index.apply([upsert_of(1, segment("b")), wrong, upsert_of(2, segment("c"))])
    assert isinstance(outcomes[1], InvalidInput)
    assert outcomes[0] == outcomes[2] == UpsertResult(stored=1, changed=1)
    assert set(stored(index)) == {(1, "b"), (2, "c")}


def test_an_operation_that_fails_half_way_is_undone(
    index: SegmentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_segments(index, 1, segment("a"))
    insert = StoreWriter.insert

    def fail_for_item_two(self: StoreWriter, kind: Any, rows: Any) -> list[int]:
        inserted = insert(self, kind, rows)
        if rows and rows[0][0].media_item_id == 2:
            raise RuntimeError("defect")
        return inserted

    monkeypatch.setattr(StoreWriter, "insert", fail_for_item_two)
    outcomes = index.apply(
        [upsert_of(1, segment("b")), upsert_of(2, segment("c")), upsert_of(3, segment("d"))]
    )
    assert "RuntimeError: defect" in str(outcomes[1])
    assert set(stored(index)) == {(1, "a"), (1, "b"), (3, "d")}
    assert index.verify() == []


GOOD = upsert_of(1, segment("a"), segment("b"))
VECTORS = GOOD.vectors
assert VECTORS is not None


def with_row(row: Any) -> Any:
    changed = np.array(VECTORS)
    changed[1] = row
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segments": (segment("a"), segment("a"))}, "segments 0 and 1 .* same id 'a'"),
        ({"segments": (segment(1), segment("1"))}, "have the same id '1'"),
        ({"segments": (segment("a"), segment(True))}, "segment id is True"),
        ({"segments": (segment("a"), segment(2**63, "x"))}, "does not fit 64 bits"),
        ({"segments": (segment("a"), segment(1.5, "x"))}, r"segment id is 1\.5"),
        ({"segments": (segment("a"), segment("\ud800", "x"))}, "not valid Unicode"),
        ({"segments": (segment("a"), segment("b", "\udc00"))}, "half of a surrogate"),
        ({"segments": (segment("a"), segment("b", x="\udc00"))}, "half of a surrogate"),
        ({"segments": (segment("a"), segment("b", x=math.nan))}, "metadata .*JSON"),
        ({"segments": (segment("a"), segment("b", x=[math.inf]))}, "metadata .*JSON"),
        ({"segments": (segment("a"), segment("b", x=object()))}, "metadata .*JSON"),
        ({"segments": (segment("a"), segment("b", x=10**5000))}, "metadata .*JSON"),
        ({"segments": (segment("a"), Segment("b", "t", math.nan))}, "start_time is nan"),
        ({"segments": (segment("a"), Segment("b", "t", 0, math.inf))}, "end_time is inf"),
        ({"segments": (segment("a"), Segment("b", "t", True))}, "start_time is True"),
        (
            {"segments": (segment("a"), Segment("b", "t", 2**63))},
            "start_time is 9223372036854775808",
        ),
        ({"segments": (segment("a"), Segment("b", "t", "1"))}, "start_time is '1'"),
        ({"segments": (segment("a"), Segment("b", 5))}, "text is int, expected a string"),
        ({"media_item_id": None}, "media_item_id is None"),
        ({"media_item_id": -(2**63) - 1}, "does not fit 64 bits"),
        ({"vectors": None}, "0 vectors came with 2 positions"),
        ({"vector_positions": (0,)}, "2 vectors came with 1 positions"),
        ({"vector_positions": (0, 0)}, "same position"),
        ({"vector_positions": (0, 2)}, "position 2 is outside of 2 segments"),
        ({"vector_positions": (0, -1)}, "position -1 is outside"),
        ({"truncated_positions": (2,)}, "truncated position 2"),
        ({"vectors": VECTORS.astype(np.float64)}, "float64, expected float32"),
        ({"vectors": VECTORS[:, :8]}, r"shape \(2, 8\), expected \(rows, 16\)"),
        ({"vectors": VECTORS[:, :, None]}, "expected"),
        ({"vectors": with_row(math.nan)}, "vector 1 has length nan"),
        ({"vectors": with_row(math.inf)}, "vector 1 has length inf"),
        ({"vectors": with_row(0)}, "vector 1 has length 0"),
        ({"vectors": with_row(VECTORS[1] * np.float32(1.002))}, r"vector 1 has length 1\.002"),
        ({"vectors": with_row(VECTORS[1] * np.float32(0.998))}, r"vector 1 has length 0\.998"),
    ],
)
def test_what_is_wrong_is_refused(
    index: SegmentIndex, change: dict[str, Any], message: str
) -> None:
    store_segments(index, 9, segment("kept"))
    outcome = apply(index, replace(GOOD, **change))
    assert type(outcome) is InvalidInput
    assert re.search(message, outcome.detail), outcome.detail
    assert set(stored(index)) == {(9, "kept")}


def test_lengths_near_one_are_set_right(index: SegmentIndex) -> None:
    scaled = (VECTORS * np.float32(1.0009)).astype(np.float32)
    assert apply(index, replace(GOOD, vectors=scaled)) == UpsertResult(stored=2, changed=2)
    snapshot = index._collections[TRANSCRIPT].snapshot
    lengths = np.linalg.norm(snapshot.vectors.astype(np.float64), axis=1)
    assert lengths == pytest.approx(1.0, abs=2e-7)
    assert np.array_equal(scaled, (VECTORS * np.float32(1.0009)))  # the caller's stay as they are
    assert find(index, "text of b", 1)[0].cosine == pytest.approx(1.0, abs=1e-7)


def test_vectors_in_any_memory_order_are_stored(index: SegmentIndex) -> None:
    assert apply(index, replace(GOOD, vectors=np.asfortranarray(VECTORS))) == UpsertResult(
        stored=2, changed=2
    )
    assert find(index, "text of b", 1)[0].cosine == 1.0


@pytest.mark.parametrize(
    ("search", "queries", "message"),
    [
        (Search(TRANSCRIPT, 0), VECTORS[:1], "top_k is 0"),
        (Search(TRANSCRIPT, 5, math.nan), VECTORS[:1], "min_similarity is nan"),
        (Search(TRANSCRIPT, 5, 1.1), VECTORS[:1], r"min_similarity is 1\.1"),
        (Search(TRANSCRIPT, 5), VECTORS, "2 queries came with 1 searches"),
        (Search(TRANSCRIPT, 5), VECTORS[:1, :4], "expected"),
        (Search(TRANSCRIPT, 5), VECTORS[:1] * np.float32(2), "vector 0 has length 2"),
        (Search(TRANSCRIPT, 5), VECTORS[:1] * np.float32(math.nan), "vector 0 has length nan"),
    ],
)
def test_a_wrong_search_is_refused(
    index: SegmentIndex, search: Search, queries: Any, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        index.search([search], queries)


def test_min_similarity_is_compared_with_the_clamped_cosine(index: SegmentIndex) -> None:
    axis = np.eye(DIMENSION, dtype=np.float64)
    mixed = [axis[0], axis[0] + axis[1], axis[1], -axis[0]]
    request = Upsert(
        TRANSCRIPT,
        1,
        tuple(segment(i) for i in range(4)),
        vectors=unit(mixed),
        vector_positions=(0, 1, 2, 3),
    )
    apply(index, request)

    def names(least: float) -> list[object]:
        search = Search(TRANSCRIPT, 9, least)
        return [hit.segment.id for hit in index.search([search], unit([axis[0]]))[0]]

    assert names(0.0) == [0, 1, 2, 3]  # a cosine below 0 is a similarity of 0
    assert names(1e-9) == [0, 1]
    assert names(0.7071) == [0, 1]
    assert names(0.7072) == [0]
    assert names(1.0) == [0]
    hits = index.search([Search(TRANSCRIPT, 9)], unit([axis[0]]))[0]
    assert [hit.cosine for hit in hits] == pytest.approx([1.0, math.sqrt(0.5), 0.0, -1.0], abs=1e-7)


def test_searches_together_are_answered_as_alone(index: SegmentIndex) -> None:
    for kind in (TRANSCRIPT, CLIP):
        store_segments(index, 1, *(segment(i, f"{kind} {i}") for i in range(60)), kind=kind)
    searches = [
        Search((TRANSCRIPT, FRAME, CLIP)[i % 3], 1 + i, (0.0, 0.2, 0.9)[i % 3]) for i in range(30)
    ]
    queries = vectors_of(f"clip {i}" for i in range(30))
    together = index.search(searches, queries)
    alone = [index.search([search], queries[i : i + 1])[0] for i, search in enumerate(searches)]
    assert together == alone
    assert {len(hits) for hits in together[1::3]} == {0}
    assert [len(hits) for hits in together[0::3]] == [1 + i for i in range(0, 30, 3)]


def test_ties_come_in_the_order_in_which_they_were_stored(index: SegmentIndex) -> None:
    for item in range(40):
        store_segments(index, item, *(segment(i, "music") for i in range(5)))
    index.apply([Upsert(TRANSCRIPT, 7, (segment(2, "music", x=1),))])
    hits = find(index, "music", 150)
    order = [(item, i) for item in range(40) for i in range(5) if (item, i) != (7, 2)]
    assert [(hit.media_item_id, hit.segment.id) for hit in hits] == order[:150]
    assert {hit.cosine for hit in hits} == {1.0}
    assert [(hit.media_item_id, hit.segment.id) for hit in find(index, "music")][-1] == (7, 2)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TIME = (
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
ID = st.integers(-(2**63), 2**63 - 1) | TEXT


@given(
    media=ID,
    wanted=st.builds(Segment, ID, TEXT, TIME, TIME, st.dictionaries(TEXT, JSON, max_size=4)),
)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_value_comes_back_exactly(
    index: SegmentIndex, media: int | str, wanted: Segment
) -> None:
    assert isinstance(store_segments(index, media, wanted, replace=True), UpsertResult)
    (hit,) = find(index, wanted.text)
    # repr tells 1 from 1.0 and 0.0 from -0.0, at any depth.
    assert repr((hit.media_item_id, hit.segment)) == repr((media, wanted))
    assert store_segments(index, media, wanted) == UpsertResult(stored=1, changed=0)
    assert index.verify() == []
    index.delete_media(media)


def test_large_metadata_and_text(index: SegmentIndex) -> None:
    metadata = {"words": [{"word": f"w{i}", "at": i / 7} for i in range(50_000)]}
    wanted = Segment("a", "long text " * 100_000, metadata=metadata)
    store_segments(index, 1, wanted)
    assert stored(index) == {(1, "a"): wanted}


def test_deeply_nested_metadata_is_refused_or_comes_back(index: SegmentIndex) -> None:
    def nested(depth: int) -> dict[str, Any]:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return {"x": value}

    wanted = Segment("a", "text", metadata=nested(199) | {"wide": [[]] * 300})
    store_segments(index, 1, wanted)
    assert stored(index) == {(1, "a"): wanted}
    for depth in (200, 900, 100_000):
        outcome = apply(index, upsert_of(1, Segment("b", "text", metadata=nested(depth))))
        assert isinstance(outcome, InvalidInput)
        assert "metadata" in outcome.detail


def test_thousands_of_segments_in_one_request(index: SegmentIndex) -> None:
    request = upsert_of(1, *(segment(i) for i in range(2500)))
    assert apply(index, request) == UpsertResult(stored=2500, changed=2500)
    bare = Upsert(TRANSCRIPT, 1, request.segments, replace=True)
    assert apply(index, bare) == UpsertResult(stored=2500)
    shifted = tuple(replace(each, id=each.id + 1) for each in request.segments)  # type: ignore[operator]
    assert apply(index, Upsert(TRANSCRIPT, 1, shifted, replace=True)) == UpsertResult(
        stored=2500, changed=2500, removed=1
    )
    assert len(find(index, top_k=5000)) == 2500
    assert index.verify() == []


def test_a_closed_index_is_not_ready(open_index: Callable[[], SegmentIndex]) -> None:
    index = open_index()
    store_segments(index, 1, segment("a"))
    index.close()
    index.close()
    for call in (
        lambda: index.apply([]),
        lambda: find(index),
        lambda: index.delete_media(1),
        lambda: index.checkpoint(),
        lambda: index.verify(),
    ):
        with pytest.raises(NotReady):
            call()
    assert index.stats().vectors[TRANSCRIPT] == 1
