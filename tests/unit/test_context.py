"""Neighbours of results in time, and highlights."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_segments import Draw, RandomContents
from search_reference import Stored
from storage_samples import FRAME, MODEL, TRANSCRIPT, segment, store_segments, vectors_of
from test_ingress import HIT, URLS, RecordingBackend, assert_problem

from deployments.core.api.search_schemas import SearchResponse
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import Hit, Search, SearchMode, Segment
from deployments.core.settings import Settings
from deployments.core.shapes import Shape
from deployments.core.storage.analyzer import places_of, terms
from deployments.rest.application import create_app


def time_of(stored: Stored) -> float | None:
    times = [stored.segment.start_time, stored.segment.end_time]
    return next((time for time in times if time is not None), None)


def check(hit: Hit, everything: list[Stored], search: Search) -> None:
    others = [each for each in everything if str(each.media_item_id) == str(hit.media_item_id)]
    timed = [(time_of(each), each.number, each.segment) for each in others]
    ordered = sorted(
        (each for each in timed if each[0] is not None), key=lambda each: (each[0], each[1])
    )
    segments = [each[2] for each in ordered]
    if not search.context:
        assert (hit.before, hit.after) == (None, None)
    elif hit.segment in segments:
        place = segments.index(hit.segment)
        assert hit.before == tuple(segments[max(0, place - search.context) : place])
        assert hit.after == tuple(segments[place + 1 : place + 1 + search.context])
    else:
        assert (hit.before, hit.after) == ((), ())
    places = tuple(places_of(hit.segment.text, set(terms(search.text))))
    assert hit.highlights == (places if search.highlight else None)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1))
def test_neighbours_are_the_next_in_time(memory_folder: Path, seed: int) -> None:
    draw = Draw(seed)
    with (
        tempfile.TemporaryDirectory(dir=memory_folder) as folder,
        SegmentIndex.open(folder, MODEL) as index,
    ):
        contents = RandomContents(index, draw)
        store_segments(index, 1, segment("another type"), kind=FRAME)
        contents.numbers = 1
        for _ in range(4):
            contents.write(draw.one((1, 5, 12)))
            searches = [
                Search(
                    TRANSCRIPT,
                    draw.one((1, 3, 100)),
                    mode=draw.one(list(SearchMode)),
                    text=draw.text(),
                    shape=draw.one((None, Shape(in_groups=True, group_size=3))),
                    context=draw.one((0, 1, 2, 10)),
                    highlight=draw.one((True, False)),
                )
                for _ in range(6)
            ]
            plain = [replace(each, context=0, highlight=False) for each in searches]
            queries = vectors_of(each.text for each in searches)
            answers = index.reads.answer(searches, queries)
            without = index.reads.answer(plain, queries)
            for search, answer, other in zip(searches, answers, without, strict=True):
                found = [hit.sequence for hit in answer.hits]
                assert found == [hit.sequence for hit in other.hits]
                for hit in answer.hits:
                    check(hit, contents.everything, search)
                    for following in hit.others or ():
                        check(following, contents.everything, search)


@pytest.fixture
def backend():
    return RecordingBackend()


@pytest.fixture
def client(backend):
    with TestClient(create_app(backend, Settings()), "http://localhost") as client:
        yield client


def test_both_can_be_asked_for(client, backend):
    fields = {"query": "RSI", "context": 2, "highlight": True}
    client.post("/search", json=fields)
    for url in URLS:
        client.get(url, params=fields)
    client.post("/search", json={"query": "RSI"})
    asked = [(each.search.context, each.search.highlight) for each in backend.asked]
    assert asked == [(2, True)] * 5 + [(0, False)]
    assert [each.search.text for each in backend.asked] == ["RSI"] * 5 + [""]


@pytest.mark.parametrize("fields", [{"context": -1}, {"context": 11}, {"highlight": "perhaps"}])
def test_what_is_refused(client, fields):
    response = client.post("/search", json={"query": "x"} | fields)
    assert_problem(response, 422, "invalid_input", next(iter(fields)))


def test_both_in_the_answer(client, backend):
    before = Segment(1, "before", 0, 3, {"ticker": "QQQ"})
    backend.hits = [replace(HIT, before=(before,), after=(), highlights=((0, 3), (10, 12)))]
    body = client.post("/search", json={"query": "x", "context": 1, "highlight": True}).json()
    SearchResponse.model_validate(body)
    (result,) = body["results"]
    assert result["highlights"] == [[0, 3], [10, 12]]
    assert result["context"] == {
        "before": [
            {
                "ticker": "QQQ",
                "media_item_id": 1,
                "segment_id": 1,
                "start_time": 0,
                "end_time": 3,
                "text": "before",
            }
        ],
        "after": [],
    }
