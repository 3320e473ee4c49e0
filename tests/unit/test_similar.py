"""Search by a stored segment, and several searches in one request."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_segments import Draw, RandomContents
from search_reference import matches, ranking, walk
from storage_samples import CLIP, MODEL, TRANSCRIPT, segment, store_segments
from test_ingress import RecordingBackend, assert_problem

from deployments.core.api.filter_schema import parsed
from deployments.core.api.results import answer_json
from deployments.core.api.search_requests import SimilarRequest
from deployments.core.api.search_schemas import BatchResponse, SimilarResponse
from deployments.core.errors import InvalidInput, NotFound
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.search.answers import Answer
from deployments.core.segments import Search, SearchMode, SegmentName
from deployments.core.settings import Settings
from deployments.core.shapes import Shape
from deployments.rest.application import create_app


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1))
def test_finds_what_is_near_to_a_segment_but_not_itself(memory_folder: Path, seed: int) -> None:
    draw = Draw(seed)
    with (
        tempfile.TemporaryDirectory(dir=memory_folder) as folder,
        SegmentIndex.open(folder, MODEL) as index,
    ):
        contents = RandomContents(index, draw)
        for _ in range(4):
            contents.write(draw.one((1, 5, 12)))
            for _ in range(5):
                if not contents.everything:
                    continue
                own = draw.one(contents.everything)
                others = [each for each in contents.everything if each is not own]
                form = draw.one((None, draw.filter()))
                ranked = ranking(others, "", own.vector, SearchMode.SEMANTIC, form)
                shape = draw.one((None, Shape(offset=1), Shape(in_groups=True)))
                search = Search(
                    TRANSCRIPT,
                    draw.one((1, 4, 100)),
                    filter=None if form is None else parsed(form),
                    shape=shape,
                )
                groups, _ = walk(
                    ranked,
                    in_groups=shape is not None and shape.in_groups,
                    groups=search.top_k,
                    passed=lambda begun, shape=shape: len(begun) > (shape.offset if shape else 0),
                )
                names = (own.media_item_id, own.segment.id)
                name = SegmentName(TRANSCRIPT, *draw.one((names, tuple(map(str, names)))))
                answer = index.reads.similar(name, search)
                assert [(hit.segment, hit.cosine) for hit in answer.hits] == [
                    (group[0].stored.segment, group[0].cosine) for group in groups
                ]
                assert all(matches(form or {}, group[0].stored) for group in groups)


@pytest.mark.parametrize(
    "name", [SegmentName(CLIP, 1, 1), SegmentName(TRANSCRIPT, 2, 1), SegmentName(TRANSCRIPT, 1, 2)]
)
def test_a_segment_that_is_not_there(index: SegmentIndex, name: SegmentName) -> None:
    store_segments(index, 1, segment(1))
    with pytest.raises(NotFound, match=f"has no {name.embedding_type} segment"):
        index.reads.similar(name, Search(name.embedding_type, 3))


def test_a_cursor_is_refused_once_the_segment_itself_was_stored_anew(index: SegmentIndex) -> None:
    store_segments(index, 1, segment("a", "query"))
    for media in range(2, 9):
        store_segments(index, media, segment("a", f"other {media}"))

    def page(cursor: str) -> Answer:
        request = SimilarRequest(media_item_id=1, segment_id="a", top_k=3, cursor=cursor)
        return index.reads.similar(request.name(), request.search())

    first = page("*")
    store_segments(index, 9, segment("a", "stored since"))
    store_segments(index, 1, segment("a", "query"))  # nothing changes
    assert first.next_cursor is not None
    second = page(first.next_cursor)
    names = [hit.media_item_id for hit in (*first.hits, *second.hits)]
    assert (len(names), set(names) < set(range(2, 9)), len(set(names))) == (6, True, 6)
    store_segments(index, 1, segment("a", "query of another meaning"))
    with pytest.raises(InvalidInput, match="segment 'a' of media item 1 was stored anew since"):
        page(first.next_cursor)
    assert len(page("*").hits) == 3


class SeveralBackend(RecordingBackend):
    """Answers also what is asked in other ways."""

    async def search_all(self, queries):
        self._take(queries)
        return [answer_json(Answer(self.hits)) for _ in queries]

    async def similar(self, name, search):
        self._take((name, search))
        return answer_json(Answer(self.hits, exhausted=True))


@pytest.fixture
def backend():
    return SeveralBackend()


@pytest.fixture
def client(backend):
    made = Settings(embeddings_max_top_k=500, embeddings_max_text_chars=100)
    with TestClient(create_app(backend, made), "http://localhost") as client:
        yield client


def test_a_batch_is_answered_in_order(client, backend):
    queries = [{"query": f"q{i}", "top_k": i + 1, "mode": "hybrid"} for i in range(100)]
    body = client.post("/search/batch", json={"queries": queries}).json()
    BatchResponse.model_validate(body)
    assert [each["query"] for each in body["responses"]] == [f"q{i}" for i in range(100)]
    single = client.post("/search", json=queries[0]).json()
    assert {**body["responses"][0], "timestamp": ""} == {**single, "timestamp": ""}
    (asked, one) = backend.asked
    assert [(each.text, each.search.top_k) for each in asked] == [
        (f"q{i}", i + 1) for i in range(100)
    ]
    assert asked[0] == one


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ([], "body.queries"),
        ([{"query": "x"}] * 101, "body.queries"),
        ([{"query": "x"}, {"query": " "}], "body.queries.1.query"),
        ([{"query": "x"}, {"query": "x", "filter": {"a": None}}], "filter.a is null"),
        ([{"query": "x"}, {"query": "x" * 101}], "queries.1: query has 101 characters"),
        ([{"query": "x", "top_k": 501}], "queries.0: top_k is 501; at most 500"),
        ([{"query": "x"}, {"query": "x", "cursor": "x"}], "queries.1: cursor is none"),
        ([{"query": "x", "top_k": 500}] * 21, "is 10500; at most 10000 together"),
        ([{"query": "x", "top_k": 25, "context": 10}], "queries.0: top_k"),
        ([{"query": "x", "top_k": 20, "context": 10}] * 24, "is 10080; at most 10000 together"),
    ],
)
def test_a_wrong_query_refuses_the_batch(client, backend, queries, message):
    response = client.post("/search/batch", json={"queries": queries})
    assert_problem(response, 422, "invalid_input", message)
    assert backend.asked == []


def test_similar_over_http(client, backend):
    fields: dict[str, Any] = {
        "media_item_id": "7",
        "segment_id": 5,
        "embedding_type": "clip",
        "top_k": 3,
        "filter": {"media_item_id": {"$ne": 7}},
        "deduplicate": True,
    }
    body = client.post("/search/similar", json=fields).json()
    SimilarResponse.model_validate(body)
    assert (body["media_item_id"], body["segment_id"], body["embedding_type"]) == ("7", 5, "clip")
    assert (body["results"][0]["metadata"]["text"], body["exhausted"]) == ("RSI above 70", True)
    ((name, search),) = backend.asked
    assert name == SegmentName(CLIP, "7", 5)
    assert (search.embedding_type, search.top_k, search.mode) == (CLIP, 3, "semantic")
    assert search.filter == parsed({"media_item_id": {"$ne": "7"}})
    assert search.shape == Shape(duplicate_cosine=0.95)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"media_item_id": 1}, "body.segment_id"),
        ({"media_item_id": 1, "segment_id": True}, "body.segment_id"),
        ({"media_item_id": 1, "segment_id": 1, "top_k": 501}, "top_k is 501"),
        ({"media_item_id": 1, "segment_id": 1, "top_k": 25, "context": 10}, "is 525; at most 500"),
        ({"media_item_id": 1, "segment_id": 1, "group_size": 2}, "group_by isn't set"),
    ],
)
def test_a_wrong_request_for_similar_segments(client, backend, fields, message):
    response = client.post("/search/similar", json=fields)
    assert_problem(response, 422, "invalid_input", message)
    assert backend.asked == []


def test_a_cursor_of_similar_segments_is_of_one_segment(client, backend):
    one = {"media_item_id": 1, "segment_id": 1, "cursor": "*"}
    client.post("/search/similar", json=one)
    client.post("/search/similar", json=one | {"media_item_id": "1"})
    client.post("/search/similar", json=one | {"segment_id": 2})
    keys = [search.shape.cursor_key for _, search in backend.asked]
    assert (keys[0] == keys[1], keys[0] == keys[2]) == (True, False)


def test_an_unknown_segment_is_a_problem(client, backend):
    backend.error = NotFound("media item 1 has no transcript segment 1")
    response = client.post("/search/similar", json={"media_item_id": 1, "segment_id": 1})
    assert_problem(response, 404, "not_found", "has no transcript segment 1")
    assert json.loads(response.text)["title"] == "Not found"
