"""Moments: of random hits against plain Python, and of an index."""

import math
import random
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from page_damage import flip_text
from storage_samples import CLIP, FRAME, MODEL, TRANSCRIPT, store_segments, vector_of, vectors_of
from test_ingress import RecordingBackend, assert_problem

from deployments.core.api.moment_schemas import MomentsResponse
from deployments.core.api.search_answers import answers_json
from deployments.core.encoding.query_vectors import compact, query_vectors
from deployments.core.errors import InvalidInput, StoreDamaged
from deployments.core.filters import Column, IdIn
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.search.moment_reads import FoundMoment
from deployments.core.search.moments import SUPPORT, Moment, find_moments
from deployments.core.segments import (
    EmbeddingType,
    Explanation,
    Hit,
    Id,
    MomentSearch,
    Part,
    Query,
    Search,
    SearchMode,
    Segment,
    Vectors,
)
from deployments.core.settings import Settings
from deployments.rest.application import create_app

Found = Mapping[EmbeddingType, Sequence[Hit]]
Span = tuple[float, float]
SEMANTIC = SearchMode.SEMANTIC
EVEN = dict.fromkeys(EmbeddingType, 1.0)
MEDIA: list[Id] = [1, "1", "two", 3]


def hit(number: int, cosine: float, start: float | None, end: float | None, media: Id = 1) -> Hit:
    told = Explanation(Part(1, cosine), Part(1, abs(cosine) * 3))
    return Hit(cosine, number, media, Segment(number, "", start, end), None, told)


@st.composite
def hits(draw: st.DrawFn) -> dict[EmbeddingType, list[Hit]]:
    found: dict[EmbeddingType, list[Hit]] = {kind: [] for kind in EmbeddingType}
    times = st.none() | st.integers(0, 60) | st.floats(0, 60, width=16)
    for number in range(draw(st.integers(0, 25))):
        start, end = draw(times), draw(times)
        if start is not None and end is not None and end < start:
            start, end = end, start
        cosine = draw(st.sampled_from([-0.1, 0.0, 0.3, 0.6, 0.62, 0.64, 0.65, 0.9]))
        kind = draw(st.sampled_from(list(EmbeddingType)))
        found[kind].append(hit(number, cosine, start, end, draw(st.sampled_from(MEDIA))))
    return found


def cosines(found: Found) -> dict[EmbeddingType, list[float]]:
    return {kind: [one.cosine for one in several] for kind, several in found.items()}


def times_of(one: Hit) -> Span | None:
    times = [time for time in (one.segment.start_time, one.segment.end_time) if time is not None]
    return (min(times), max(times)) if times else None


def within(one: Span, other: Span) -> bool:
    """Whether at least 0.7 of the first is in the second."""
    if one[0] == one[1]:
        return other[0] <= one[0] <= other[1]
    return min(one[1], other[1]) - max(one[0], other[0]) >= 0.7 * (one[1] - one[0])


def strengths(found: Found, weights: Mapping[EmbeddingType, float]) -> dict[int, float]:
    best = max((one.cosine for several in found.values() for one in several), default=0.0)
    result = {}
    for kind, several in found.items():
        cosines = sorted((one.cosine for one in several), reverse=True)
        floor = cosines[99] if len(cosines) > 99 else min([0.0, *cosines])
        for one in several:
            share = (one.cosine - floor) / (best - floor) if best > floor else 0.0
            result[one.sequence] = max(0.0, share) * weights[kind]
    return result


def reference(found: Found, weights: Mapping[EmbeddingType, float]) -> list[tuple[Any, ...]]:
    """Media item, times, score and the evidence's numbers of all moments, in no order."""
    strength = strengths(found, weights)
    kind_of = {one.sequence: kind for kind, several in found.items() for one in several}
    every = [one for several in found.values() for one in several]
    moments: list[tuple[Any, ...]] = []
    for media in {str(one.media_item_id) for one in every}:
        mine = [one for one in every if str(one.media_item_id) == media]
        untimed = [one for one in mine if times_of(one) is None]
        if untimed:
            best = max(strength[one.sequence] for one in untimed)
            moments.append((media, None, best, {one.sequence for one in untimed}))
        timed = {one.sequence: span for one in mine if (span := times_of(one)) is not None}
        score = {}
        for number, span in timed.items():
            total = 0.0
            for other, (start, end) in sorted(timed.items()):
                gap = max(0.0, max(start, span[0]) - min(end, span[1]))
                total += strength[other] ** 2 * math.exp(-gap / 30) if other != number else 0.0
            score[number] = strength[number] + SUPPORT * math.sqrt(total)
        order = sorted(
            timed,
            key=lambda n: (-round(score[n], 9), -strength[n], timed[n], kind_of[n], n),
        )
        taken: list[Span] = []
        while order:
            seed = order[0]
            edges = [-math.inf, *(edge for span in sorted(taken) for edge in span), math.inf]
            places = [
                (edges[i], edges[i + 1])
                for i in range(0, len(edges), 2)
                if within(timed[seed], (edges[i], edges[i + 1]))
            ]
            if not places:
                order.remove(seed)
                continue
            free = places[0]
            span = timed[seed]
            if span[0] == span[1]:
                for other in order:
                    start, end = timed[other]
                    if within(timed[other], free) and start <= span[0] <= end and start < end:
                        span = (start, end)
                        break
            grown = True
            while grown:
                grown = False
                for other in order:
                    start, end = timed[other]
                    touches = start <= span[1] + 3 and end >= span[0] - 3
                    strong = 0 < 0.9 * strength[seed] <= strength[other]
                    wider = start < span[0] or end > span[1]
                    if touches and strong and wider and within(timed[other], free):
                        span = (min(start, span[0]), max(end, span[1]))
                        grown = True
            span = (max(span[0], free[0]), min(span[1], free[1]))
            inside = {other for other in order if within(timed[other], span)}
            moments.append((media, span, score[seed], inside))
            order = [other for other in order if other not in inside]
            taken.append(span)
    return moments


def told(moment: Moment) -> tuple[Any, ...]:
    span = None if moment.start_time is None else (moment.start_time, moment.end_time)
    numbers = {each.hit.sequence for each in moment.evidence}
    return (str(moment.media_item_id), span, pytest.approx(moment.score), numbers)


@settings(max_examples=500, deadline=None)
@given(found=hits(), weight=st.sampled_from([0.5, 1.0, 2.0]))
def test_moments_are_those_of_plain_python(
    found: dict[EmbeddingType, list[Hit]], weight: float
) -> None:
    weights = EVEN | {FRAME: weight}
    moments = [told(each) for each in find_moments(found, cosines(found), weights, SEMANTIC, 100)]
    expected = reference(found, weights)
    assert sorted(moments, key=lambda one: (one[0], sorted(one[3]))) == sorted(
        expected, key=lambda one: (one[0], sorted(one[3]))
    )


@settings(max_examples=500, deadline=None)
@given(
    found=hits(),
    mode=st.sampled_from(list(SearchMode)),
    top_k=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_moments_never_overlap_and_have_what_they_say(
    found: dict[EmbeddingType, list[Hit]], mode: SearchMode, top_k: int, seed: int
) -> None:
    moments = find_moments(found, cosines(found), EVEN, mode, 100)
    scores = [moment.score for moment in moments]
    assert scores == sorted(scores, reverse=True)
    numbers = [each.hit.sequence for moment in moments for each in moment.evidence]
    assert len(numbers) == len(set(numbers))
    spans: dict[str, list[Span | None]] = {}
    for moment in moments:
        media = str(moment.media_item_id)
        start, end = moment.start_time, moment.end_time
        span = None if start is None or end is None else (start, end)
        spans.setdefault(media, []).append(span)
        best = moment.evidence[0]
        assert moment.score == pytest.approx(best.strength + moment.support)
        for each in moment.evidence:
            assert str(each.hit.media_item_id) == media
            times = times_of(each.hit)
            assert times is None if span is None else times is not None and within(times, span)
    for several in spans.values():
        assert several.count(None) <= 1
        timed = sorted(span for span in several if span is not None)
        assert all(one[1] <= other[0] for one, other in pairwise(timed))
    assert find_moments(found, cosines(found), EVEN, mode, top_k) == moments[:top_k]
    shuffled = {kind: random.Random(seed).sample(many, len(many)) for kind, many in found.items()}
    assert find_moments(shuffled, cosines(shuffled), EVEN, mode, 100) == moments


def test_touching_hits_that_match_almost_as_well_are_one_moment() -> None:
    parts = [
        hit(1, 0.80, 0, 10),
        hit(2, 0.79, 12, 20),
        hit(3, 0.30, 20, 30),
        hit(4, 0.78, 30, 40),
    ]
    moments = find_moments({TRANSCRIPT: parts}, cosines({TRANSCRIPT: parts}), EVEN, SEMANTIC, 10)
    assert [(one.start_time, one.end_time) for one in moments] == [(0, 20), (30, 40), (20, 30)]


def test_a_frame_is_in_the_moment_of_what_is_said_meanwhile() -> None:
    found = {FRAME: [hit(1, 0.9, 5, None)], TRANSCRIPT: [hit(2, 0.4, 3, 8)]}
    (moment,) = find_moments(found, cosines(found), EVEN, SEMANTIC, 10)
    assert (moment.start_time, moment.end_time) == (3, 8)
    assert [each.embedding_type for each in moment.evidence] == [FRAME, TRANSCRIPT]


def search(**changes: Any) -> MomentSearch:
    weights = tuple((kind, 1.0) for kind in EmbeddingType)
    return MomentSearch(**{"weights": weights, "top_k": 10, "mode": SEMANTIC} | changes)


def find(index: SegmentIndex, text: str, **changes: Any) -> list[FoundMoment]:
    wanted = search(**changes)
    (found,) = index.reads.moments([wanted], vectors_of([text] * len(wanted.embedding_types)))
    return found


@pytest.fixture
def index(tmp_path: Path) -> Any:
    with SegmentIndex.open(tmp_path / "index", MODEL) as index:
        lines = [Segment(i, f"line {i}", i * 10, i * 10 + 9) for i in range(8)]
        store_segments(index, "7", *lines)
        store_segments(index, 7, Segment(1, "a chart", 35), kind=FRAME)
        store_segments(index, 7, Segment(1, "without times"), kind=CLIP)
        store_segments(index, 8, Segment(1, "line 3", 0, 5))
        yield index


def test_an_index_gives_moments_of_all_types_with_what_is_said_around(index: SegmentIndex) -> None:
    best = find(index, "a chart", context=2)[0]
    assert (best.moment.media_item_id, best.moment.start_time, best.moment.end_time) == (7, 30, 39)
    kinds = [(each.embedding_type, each.hit.segment.id) for each in best.moment.evidence]
    assert kinds == [(FRAME, 1), (TRANSCRIPT, 3)]
    assert best.moment.evidence[0].hit.cosine == pytest.approx(1)
    assert best.context is not None
    assert [each.text for each in best.context.before] == ["line 1", "line 2"]
    assert [each.text for each in best.context.during] == ["line 3"]
    assert [each.text for each in best.context.after] == ["line 4", "line 5"]
    untimed = find(index, "without times", context=2)[0]
    assert untimed.moment.start_time is None
    assert untimed.context is None


def test_types_similarities_and_filters_choose_the_hits(index: SegmentIndex) -> None:
    (only,) = find(index, "a chart", weights=((FRAME, 1.0),))
    assert (only.moment.start_time, only.moment.end_time) == (35, 35)
    said = find(index, "line 3", min_similarity=0.99)
    places = {(str(one.moment.media_item_id), one.moment.start_time) for one in said}
    assert places == {("7", 30), ("8", 0)}
    (other,) = find(
        index, "line 3", filter=IdIn.of(Column.MEDIA_ITEM_ID, [8]), mode=SearchMode.HYBRID
    )
    assert other.moment.media_item_id == 8
    with pytest.raises(InvalidInput, match="min_similarity is 2"):
        find(index, "line 3", min_similarity=2)


def test_searches_of_both_kinds_share_a_call(index: SegmentIndex) -> None:
    asked = [search(top_k=1), Search(FRAME, 5), search(weights=((CLIP, 1.0),))]
    texts = ["line 5", "line 5", "line 5", "a chart", "x"]
    answers = answers_json(index.reads, asked, vectors_of(texts))
    assert [b'"start_time":50' in answers[0], b'"results":' in answers[1]] == [True, True]
    assert b"without times" in answers[2]


@pytest.mark.parametrize("fields", [{}, {"query": None, "types": {"transcript": 1, "frame": 1}}])
def test_moments_by_vectors_of_the_caller_s(index: SegmentIndex, fields: dict[str, Any]) -> None:
    own = {"transcript": vector_of("line 5").tolist(), "frame": vector_of("a chart").tolist()}
    response, _ = post(index, embeddings=own, mode="semantic", top_k=2, **fields)
    found = [each["evidence"] for each in response.json()["moments"]]
    best = {
        evidence["metadata"]["text"]: evidence["similarity"]
        for by_type in found
        for each in by_type.values()
        for evidence in each
    }
    assert (best["line 5"], best["a chart"]) == pytest.approx((1, 1))


def test_a_damaged_row_is_refused(index: SegmentIndex, tmp_path: Path) -> None:
    index.close()
    flip_text(tmp_path / "index/store.sqlite3", b"a chart")
    with SegmentIndex.open(tmp_path / "index", MODEL) as reopened:
        with pytest.raises(StoreDamaged, match="is not what was written"):
            find(reopened, "line 3")
        assert reopened.stats().damage is not None


class FindingBackend(RecordingBackend):
    """Answers searches from a real index."""

    def __init__(self, index: SegmentIndex) -> None:
        super().__init__()
        self._reads = index.reads

    async def search(self, query: Query) -> bytes:
        async def encode(_: str, texts: list[str]) -> Vectors:
            return vectors_of(texts)

        self.asked.append(query)
        (compared,) = await query_vectors([query], dict.fromkeys(EmbeddingType, MODEL), encode)
        assert isinstance(compared, list)
        (answer,) = answers_json(self._reads, [query.search], compact(compared))
        return answer


def post(index: SegmentIndex, **body: Any) -> tuple[Any, FindingBackend]:
    backend = FindingBackend(index)
    app = create_app(backend, Settings(embeddings_max_top_k=50, embeddings_max_text_chars=100))
    with TestClient(app, "http://localhost") as client:
        return client.post("/search/moments", json={"query": "a chart"} | body), backend


def test_the_route_answers_in_its_documented_shape(index: SegmentIndex) -> None:
    response, backend = post(
        index,
        types={"frame": 1, "transcript": 0.5},
        top_k=1,
        mode="hybrid",
        filter={"media_item_id": 7},
        context=1,
        explain=True,
    )
    assert response.status_code == 200, response.text
    body = response.json()
    MomentsResponse.model_validate(body)
    assert body["query"] == "a chart"
    (moment,) = body["moments"]
    assert (moment["media_item_id"], moment["start_time"], moment["end_time"]) == (7, 30, 39)
    assert moment["score"] == pytest.approx(sum(moment["explain"].values()))
    (frame,) = moment["evidence"]["frame"]
    assert (frame["similarity"], frame["strength"]) == (pytest.approx(1), 1)
    assert frame["explain"]["keyword"]["rank"] == 1
    assert frame["metadata"]["text"] == "a chart"
    around = {
        name: [each["segment_id"] for each in some] for name, some in moment["context"].items()
    }
    assert around == {"before": [2], "during": [3], "after": [4]}
    assert backend.asked[0].search == MomentSearch(
        ((TRANSCRIPT, 0.5), (FRAME, 1.0)),
        1,
        text="a chart",
        explain=True,
        filter=IdIn.of(Column.MEDIA_ITEM_ID, [7]),
        context=1,
    )


def test_the_route_searches_all_types_and_by_both_if_nothing_else_is_asked(
    index: SegmentIndex,
) -> None:
    response, backend = post(index)
    assert backend.asked[0].search == search(mode=SearchMode.HYBRID, text="a chart")
    (first, *_) = response.json()["moments"]
    assert first.keys() == {"media_item_id", "start_time", "end_time", "score", "evidence"}


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"types": {}}, "types"),
        ({"types": {"sound": 1}}, "types"),
        ({"types": {"frame": 0}}, "types"),
        ({"top_k": 51}, "at most 50"),
        ({"top_k": 101}, "top_k"),
        ({"context": -1}, "context"),
        ({"query": "x" * 101}, "at most 100"),
        ({"filter": {"$or": []}}, "filter"),
    ],
)
def test_the_route_refuses(index: SegmentIndex, wrong: dict[str, Any], part: str) -> None:
    response, _ = post(index, **wrong)
    assert_problem(response, 422, "invalid_input", part)
