"""What the fields of a search request become, and what is refused."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from test_ingress import HIT, URLS, RecordingBackend, assert_problem

from deployments.core.api.results import answer_json
from deployments.core.api.search_requests import SearchRequest
from deployments.core.api.search_schemas import SearchResponse
from deployments.core.search import cursors
from deployments.core.search.answers import Answer
from deployments.core.segments import Hit, Segment
from deployments.core.settings import Settings
from deployments.core.shapes import Position, Shape
from deployments.rest.application import create_app


@pytest.fixture
def backend():
    return RecordingBackend()


@pytest.fixture
def client(backend):
    with TestClient(
        create_app(backend, Settings(embeddings_max_top_k=50)), "http://localhost"
    ) as client:
        yield client


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({}, None),
        ({"offset": 0}, Shape()),
        ({"offset": 20}, Shape(offset=20)),
        ({"group_by": "media_item_id"}, Shape(in_groups=True)),
        ({"group_by": "media_item_id", "group_size": 3}, Shape(in_groups=True, group_size=3)),
        ({"deduplicate": True}, Shape(duplicate_cosine=0.95)),
        ({"deduplicate": 0.8}, Shape(duplicate_cosine=0.8)),
        ({"deduplicate": False}, None),
        ({"deduplicate": 1}, Shape(duplicate_cosine=1.0)),
        ({"deduplicate": 1.0}, Shape(duplicate_cosine=1.0)),
        ({"deduplicate": "True"}, Shape(duplicate_cosine=0.95)),
    ],
)
def test_the_shape_of_a_search(client, backend, fields, shape):
    assert client.post("/search", json={"query": "x"} | fields).status_code == 200
    for url in URLS:
        assert client.get(url, params={"query": "x"} | fields).status_code == 200
    assert [asked.search.shape for asked in backend.asked] == [shape] * 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"offset": -1}, "greater than or equal to 0"),
        ({"offset": 10_001}, "less than or equal to 10000"),
        ({"offset": 1, "cursor": "*"}, "send offset or cursor, not both"),
        ({"group_by": "ticker"}, "'media_item_id'"),
        ({"group_size": 2}, "group_size is 2, but group_by isn't set"),
        ({"group_by": "media_item_id", "group_size": 0}, "group_size"),
        ({"group_by": "media_item_id", "group_size": 6}, "context) is 60; at most 50"),
        ({"top_k": 3, "context": 9}, "is 57; at most 50"),
        ({"top_k": 2, "group_by": "media_item_id", "group_size": 2, "context": 6}, "is 52; at"),
        ({"deduplicate": 1.5}, "less than or equal to 1"),
        ({"deduplicate": 0}, "greater than 0"),
        ({"deduplicate": "yes"}, "valid"),
        ({"cursor": "nonsense"}, "cursor is none that this service gave"),
        ({"cursor": "x" * 5000}, "cursor is none that this service gave"),
    ],
)
def test_a_wrong_shape_is_a_problem(client, backend, fields, message):
    assert_problem(client.post("/search", json={"query": "x"} | fields), 422, "invalid_input")
    assert message in client.post("/search", json={"query": "x"} | fields).text
    for url in URLS:
        response = client.get(url, params={"query": "x"} | fields)
        assert_problem(response, 422, "invalid_input", message)
    assert backend.asked == []


REQUEST = {"query": "x", "cursor": "*", "filter": {"a": 1, "b": 2}}


def test_a_cursor_leads_to_the_next_page_of_the_same_search_only(client, backend):
    client.post("/search", json=REQUEST)
    first = backend.asked[0].search.shape
    assert (first.cursor_key is not None, first.after) == (True, None)
    position = Position(9, 0.25, 4)
    cursor = cursors.encoded(first.cursor_key, position)
    for same in ({}, {"top_k": 3}, {"explain": True}, {"filter": {"b": 2.0, "a": 1}}):
        client.post("/search", json=REQUEST | {"cursor": cursor} | same)
        assert backend.asked[-1].search.shape == Shape(cursor_key=first.cursor_key, after=position)
    others: list[dict[str, Any]] = [
        {"query": "y"},
        {"embedding_type": "clip"},
        {"mode": "hybrid"},
        {"min_similarity": 0.1},
        {"filter": {"a": True, "b": 2}},
        {"filter": None},
        {"group_by": "media_item_id"},
        {"deduplicate": True},
    ]
    for other in others:
        response = client.post("/search", json=REQUEST | {"cursor": cursor} | other)
        assert_problem(response, 422, "invalid_input", "cursor is of another request")


def test_groups_and_cursors_in_the_answer(client, backend):
    other = Hit(0.5, 3, 1, Segment(3, "next"))
    grouped = Hit(HIT.cosine, HIT.sequence, HIT.media_item_id, HIT.segment, others=(other,))

    async def search(_: object) -> bytes:
        return answer_json(Answer([grouped], paged=True, next_cursor="abc"))

    backend.search = search
    body = client.post("/search", json={"query": "x"}).json()
    assert SearchResponse.model_validate(body).results[0].others
    (result,) = body["results"]
    assert (result["index"], result["metadata"]["segment_id"]) == (0, 2)
    (following,) = result["others"]
    assert (following["index"], following["similarity"]) == (0, 0.5)
    assert following["metadata"]["text"] == "next"
    assert body["next_cursor"] == "abc"


def test_the_last_page_has_no_next_cursor(client, backend):
    async def search(_: object) -> bytes:
        return answer_json(Answer([HIT], exhausted=True, paged=True))

    backend.search = search
    body = client.post("/search", json={"query": "x"}).json()
    assert (body["next_cursor"], body["exhausted"]) == (None, True)
    assert "others" not in body["results"][0]


def test_the_documented_examples_are_requests(client):
    document = client.get("/openapi.json").json()["components"]["schemas"]
    for example in document["SearchRequest"]["examples"]:
        assert SearchRequest.model_validate(example).question() is not None
