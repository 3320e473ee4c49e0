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
from deployments.core.search import moment_reads
from deployments.core.search.moment_reads import FoundMoment, FoundMoments
from deployments.core.search.moment_strengths import evidence_of
from deployments.core.search.moments import SUPPORT, Moment
from deployments.core.search.moments import find_moments as moments_of
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
    last = draw(st.sampled_from([60, 400]))
    times = st.none() | st.integers(0, last) | st.floats(0, last, width=16)
    for number in range(draw(st.integers(0, 25))):
        start, end = draw(times), draw(times)
        if start is not None and end is not None and end < start:
            start, end = end, start
        cosine = draw(st.sampled_from([-0.1, 0.0, 0.3, 0.6, 0.62, 0.64, 0.65, 0.9]))
        kind = draw(st.sampled_from(list(EmbeddingType)))
        found[kind].append(hit(number, cosine, start, end, draw(st.sampled_from(MEDIA))))
    return found


@st.composite
def long_runs(draw: st.DrawFn) -> dict[EmbeddingType, list[Hit]]:
    """About a hundred hits that are alike, or almost, and some others."""
    found = draw(hits())
    kind = draw(st.sampled_from(list(EmbeddingType)))
    cosine = draw(st.sampled_from([0.3, 0.65, 0.9]))
    less = draw(st.sampled_from([0.0, 1e-9, 1e-4, 1e-3]))
    step = draw(st.sampled_from([0, 1, 4]))
    media = draw(st.sampled_from([MEDIA, MEDIA[:1]]))
    for i in range(draw(st.integers(97, 130))):
        start, name = i * step, media[i % len(media)]
        found[kind].append(hit(100 + i, cosine - less * (i * 7 % 13), start, start + 1, name))
    return found


def cosines(found: Found) -> dict[EmbeddingType, list[float]]:
    return {kind: [one.cosine for one in several] for kind, several in found.items()}


def times_of(one: Hit) -> Span | None:
    times = [time for time in (one.segment.start_time, one.segment.end_time) if time is not None]
    return (min(times), max(times)) if times else None


def touch(one: Span, other: Span) -> bool:
    """Whether there are at most 3 s between them."""
    return one[0] <= other[1] + 3 and other[0] <= one[1] + 3


def expected_values(
    found: Found, weights: Mapping[EmbeddingType, float]
) -> tuple[dict[int, float], dict[int, float]]:
    """The strengths and the matches of all hits in a semantic search."""
    every = [one.cosine for several in found.values() for one in several]
    zero, top = min([0.0, *every]), max([0.0, *every])
    deep = [sorted(c, reverse=True)[99] for c in cosines(found).values() if len(c) >= 100]
    strength, match = {}, {}
    for kind, several in found.items():
        own = sorted((one.cosine for one in several), reverse=True)
        hundredth = own[99] if len(own) >= 100 else max(deep, default=zero)
        hundredth = min(hundredth, zero + 0.8 * (own[0] - zero)) if own else zero
        for one in several:
            linear = (one.cosine - zero) / (top - zero) if top > zero else 0.0
            match[one.sequence] = linear * weights[kind]
            if hundredth > zero and one.cosine >= hundredth:
                linear = 0.02 + 0.98 * (one.cosine - hundredth) / (top - hundredth)
            elif hundredth > zero:
                linear = 0.02 * (one.cosine - zero) / (hundredth - zero)
            strength[one.sequence] = linear * weights[kind]
    return strength, match


def reference(found: Found, weights: Mapping[EmbeddingType, float]) -> list[tuple[Any, ...]]:
    """Media item, times, score and the evidence's numbers of all moments, in no order."""
    strength, match = expected_values(found, weights)
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

        length = {number: end - start for number, (start, end) in timed.items()}
        order = sorted(
            timed,
            key=lambda n: (
                -round(score[n], 9),
                -round(strength[n], 9),
                -match[n],
                timed[n],
                kind_of[n],
                n,
            ),
        )
        while order:
            seed = order[0]
            span = timed[seed]
            if span[0] == span[1]:
                for other in order:
                    start, end = timed[other]
                    if start <= span[0] <= end and start < end:
                        span = (start, end)
                        break
            grown = True
            while grown:
                grown = False
                for other in order:
                    start, end = timed[other]
                    alike = 0 < 0.9 * match[seed] <= match[other]
                    wider = start < span[0] or end > span[1]
                    if touch((start, end), span) and alike and wider:
                        span = (min(start, span[0]), max(end, span[1]))
                        grown = True
            there = set()
            for other in order:
                start, end = timed[other]
                if not touch((start, end), span):
                    continue
                least = max(0.5 * length[other], 15)
                if end - (span[1] + 3 + 0.001) >= least:
                    timed[other] = (max(start, span[1] + 3 + 0.001), end)
                elif (span[0] - 3 - 0.001) - start >= least:
                    timed[other] = (start, min(end, span[0] - 3 - 0.001))
                else:
                    there.add(other)
            moments.append((media, span, score[seed], there))
            order = [other for other in order if other not in there]
    return moments


def told(moment: Moment) -> tuple[Any, ...]:
    span = None if moment.start_time is None else (moment.start_time, moment.end_time)
    numbers = {each.hit.sequence for each in moment.evidence}
    return (str(moment.media_item_id), span, pytest.approx(moment.score), numbers)


def find_moments(
    found: Found, weights: Mapping[EmbeddingType, float], mode: SearchMode, top_k: int
) -> list[Moment]:
    return moments_of(evidence_of(found, cosines(found), weights, mode), top_k)


@settings(max_examples=500, deadline=None)
@given(found=hits() | long_runs(), weight=st.sampled_from([0.5, 1.0, 2.0]))
def test_moments_are_those_of_plain_python(
    found: dict[EmbeddingType, list[Hit]], weight: float
) -> None:
    weights = EVEN | {FRAME: weight}
    moments = [told(each) for each in find_moments(found, weights, SEMANTIC, 1000)]
    expected = reference(found, weights)
    assert sorted(moments, key=lambda one: (one[0], sorted(one[3]))) == sorted(
        expected, key=lambda one: (one[0], sorted(one[3]))
    )


@settings(max_examples=500, deadline=None)
@given(
    found=hits() | long_runs(),
    mode=st.sampled_from(list(SearchMode)),
    top_k=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_moments_never_nearly_touch_and_have_what_they_say(
    found: dict[EmbeddingType, list[Hit]], mode: SearchMode, top_k: int, seed: int
) -> None:
    moments = find_moments(found, EVEN, mode, 1000)
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
            assert times is None if span is None else times is not None and touch(times, span)
    for several in spans.values():
        assert several.count(None) <= 1
        timed = sorted(span for span in several if span is not None)
        assert not any(touch(one, other) for one, other in pairwise(timed))
    assert find_moments(found, EVEN, mode, top_k) == moments[:top_k]
    shuffled = {kind: random.Random(seed).sample(many, len(many)) for kind, many in found.items()}
    assert find_moments(shuffled, EVEN, mode, 1000) == moments


def test_touching_hits_that_match_almost_as_well_are_one_moment() -> None:
    parts = [
        hit(1, 0.80, 0, 10),
        hit(2, 0.79, 12, 20),
        hit(3, 0.30, 20, 30),
        hit(4, 0.78, 30, 40),
    ]
    moments = find_moments({TRANSCRIPT: parts}, EVEN, SEMANTIC, 10)
    assert [(one.start_time, one.end_time) for one in moments] == [(0, 20), (30, 40)]
    assert [each.hit.sequence for each in moments[0].evidence] == [1, 2, 3]


def test_a_long_hit_that_only_touches_a_better_one_is_a_moment_of_its_own_without_that_end() -> (
    None
):
    parts = [hit(1, 0.8, 0, 40), hit(2, 0.6, 40, 80), hit(3, 0.5, 80, 109), hit(4, 0.4, 81, 130)]
    moments = find_moments({CLIP: parts}, EVEN, SEMANTIC, 10)
    assert [(one.start_time, one.end_time) for one in moments] == [
        (0, 40),
        (43.001, 80),
        (83.001, 109),
    ]
    numbers = [{each.hit.sequence for each in one.evidence} for one in moments]
    assert numbers == [{1}, {2}, {3, 4}]


def test_a_short_hit_that_touches_a_better_one_is_its_evidence() -> None:
    parts = [hit(1, 0.8, 0, 40), hit(2, 0.6, 40, 57.9), hit(3, 0.6, 61, 62)]
    moments = find_moments({CLIP: parts}, EVEN, SEMANTIC, 10)
    assert [(one.start_time, one.end_time) for one in moments] == [(0, 40), (61, 62)]
    assert [each.hit.sequence for each in moments[0].evidence] == [1, 2]


def test_a_frame_is_in_the_moment_of_what_is_said_meanwhile() -> None:
    found = {FRAME: [hit(1, 0.9, 5, None)], TRANSCRIPT: [hit(2, 0.4, 3, 8)]}
    (moment,) = find_moments(found, EVEN, SEMANTIC, 10)
    assert (moment.start_time, moment.end_time) == (3, 8)
    assert [each.embedding_type for each in moment.evidence] == [FRAME, TRANSCRIPT]


@pytest.mark.parametrize("less", [0.0, 1e-9, 1e-4])
def test_a_long_stretch_of_equal_hits_is_one_moment_with_a_score(less: float) -> None:
    found = {TRANSCRIPT: [hit(i, 0.9 - less * i, 5 * i, 5 * i + 5) for i in range(120)]}
    (moment,) = find_moments(found, EVEN, SEMANTIC, 10)
    assert (moment.start_time, moment.end_time) == (0, 600)
    assert moment.evidence[0].strength > 0.98
    assert len(moment.evidence) == 120


def test_a_hundred_equal_hits_come_before_lesser_ones_of_another_type() -> None:
    found = {
        TRANSCRIPT: [hit(i, 0.9, 0, 5, media=i) for i in range(110)],
        FRAME: [hit(200 + i, 0.3 + i / 100, 0, 5, media=200 + i) for i in range(3)],
    }
    moments = find_moments(found, EVEN, SEMANTIC, 120)
    assert [one.media_item_id for one in moments[-3:]] == [202, 201, 200]
    assert [one.score for one in moments[:110]] == [1] * 110
    assert moments[110].score < 0.5


def test_few_hits_of_a_type_count_on_the_scale_of_the_others() -> None:
    found = {
        TRANSCRIPT: [hit(i, 0.8 - i / 250, 0, 5, media=i) for i in range(110)],
        FRAME: [hit(200, 0.5, 0, 5, media=200)],
    }
    moments = find_moments(found, EVEN, SEMANTIC, 120)
    assert all(one.evidence[0].hit.cosine > 0.5 for one in moments[:75])
    assert [one.media_item_id for one in moments].index(200) in range(75, 100)


def search(**changes: Any) -> MomentSearch:
    weights = tuple((kind, 1.0) for kind in EmbeddingType)
    return MomentSearch(**{"weights": weights, "top_k": 10, "mode": SEMANTIC} | changes)


def answer(index: SegmentIndex, text: str, **changes: Any) -> FoundMoments:
    wanted = search(**changes)
    (found,) = index.reads.moments([wanted], vectors_of([text] * len(wanted.embedding_types)))
    assert isinstance(found, FoundMoments)
    return found


def find(index: SegmentIndex, text: str, **changes: Any) -> list[FoundMoment]:
    return answer(index, text, **changes).moments


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
    kinds = {(each.embedding_type, each.hit.segment.id) for each in best.moment.evidence}
    # Those of which 1 s is between them and the moment are found with it.
    assert kinds == {(FRAME, 1), (TRANSCRIPT, 2), (TRANSCRIPT, 3), (TRANSCRIPT, 4)}
    assert best.moment.evidence[0].embedding_type == FRAME
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


def test_hits_are_looked_for_until_there_are_enough_moments(tmp_path: Path) -> None:
    with SegmentIndex.open(tmp_path / "index", MODEL) as index:
        store_segments(index, "slide", *(Segment(i, "a slide", i) for i in range(150)), kind=FRAME)
        for media in range(30):
            store_segments(index, media, Segment(1, f"another {media}", 5), kind=FRAME)
        only = {"weights": ((FRAME, 1.0),)}
        found = answer(index, "a slide", top_k=10, **only)
        assert len(found.moments) == 10
        assert not found.exhausted
        best = found.moments[0].moment
        assert (best.media_item_id, best.start_time, best.end_time) == ("slide", 0, 149)
        every = answer(index, "a slide", top_k=50, **only)
        assert (len(every.moments), every.exhausted) == (31, True)
        assert [one.moment for one in every.moments[:10]] == [one.moment for one in found.moments]
        most = answer(index, "a slide", top_k=31, **only)
        assert (len(most.moments), most.exhausted) == (31, False)
        alike = answer(index, "a slide", top_k=10, min_similarity=0.99, **only)
        assert (len(alike.moments), alike.exhausted) == (1, True)


def test_times_are_those_of_all_hits_that_match_alike(tmp_path: Path) -> None:
    with SegmentIndex.open(tmp_path / "index", MODEL) as index:
        store_segments(index, "slide", *(Segment(i, "a slide", i) for i in range(150)), kind=FRAME)
        for mode in SearchMode:
            wanted = search(top_k=1, mode=mode, text="a slide")
            (found,) = index.reads.moments([wanted], vectors_of(["a slide"] * 3))
            assert isinstance(found, FoundMoments)
            (best,) = found.moments
            assert (best.moment.start_time, best.moment.end_time) == (0, 149)


def test_searches_that_need_more_hits_share_a_call_with_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moment_reads, "MOST_HITS", 200)
    with SegmentIndex.open(tmp_path / "index", MODEL) as index:
        store_segments(index, 1, *(Segment(i, "a slide", i) for i in range(250)), kind=FRAME)
        store_segments(index, 2, Segment(1, "line", 5))
        asked = [search(weights=((kind, 1.0),)) for kind in (TRANSCRIPT, FRAME, CLIP)]
        found = index.reads.moments(asked, vectors_of(["line", "a slide", "x"]))
        counts = [
            (len(one.moments), one.exhausted) for one in found if isinstance(one, FoundMoments)
        ]
        # Of 250 frames 200 are looked at.
        assert counts == [(1, True), (1, False), (0, True)]


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
    assert "exhausted" not in body
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
    assert response.json()["exhausted"] is True
    MomentsResponse.model_validate(response.json())
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
