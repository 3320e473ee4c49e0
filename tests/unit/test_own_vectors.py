"""Vectors of callers' own: what is accepted, what it becomes, and what requests make of it."""

import base64
import json

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic_core import PydanticCustomError
from test_ingress import RecordingBackend, assert_problem, embed_body, with_segment
from whole_service import whole_service

from deployments.core.own_vectors import MOST_NUMBERS, dimension_of, unit_vector
from deployments.core.segments import MomentSearch, Query, Search, Segment
from deployments.core.settings import Settings
from deployments.rest.application import create_app

UNIT = np.array([0.6, 0.8], "<f4").tobytes()


def base64_of(*numbers):
    return base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()


@pytest.fixture
def backend():
    return RecordingBackend()


@pytest.fixture
def client(backend):
    app = create_app(backend, Settings(embeddings_max_text_chars=100))
    with TestClient(app, "http://localhost", raise_server_exceptions=False) as client:
        yield client


@given(
    hnp.arrays(
        np.float32,
        st.integers(1, 8),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    ).filter(lambda numbers: numbers.any())
)
def test_both_forms_give_the_direction_with_length_1(numbers):
    made = unit_vector(numbers.tolist())
    assert made == unit_vector(base64_of(*numbers))
    assert dimension_of(made) == len(numbers)
    unit = np.frombuffer(made, "<f4").astype(np.float64)
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-6)
    exact = numbers.astype(np.float64) / np.abs(numbers.astype(np.float64)).max()
    assert unit @ exact / np.linalg.norm(exact) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "numbers", [[3, 4], [3.0, 4], [3e300, 4e300], [3e-320, 4e-320], [6e-5, 8e-5]]
)
def test_numbers_of_any_size(numbers):
    unit = np.frombuffer(unit_vector(numbers), "<f4")
    assert unit.tolist() == pytest.approx([0.6, 0.8], abs=1e-3)


WRONG = [
    (5, "embedding_form", "list of numbers, or a string"),
    ({"0": 1}, "embedding_form", "list of numbers, or a string"),
    (["1"], "embedding_form", "numbers only"),
    ([True], "embedding_form", "numbers only"),
    ([[1, 2]], "embedding_form", "numbers only"),
    ([1, None], "embedding_form", "numbers only"),
    ("%%%", "embedding_form", "no base64"),
    ("ü", "embedding_form", "no base64"),
    (base64.b64encode(b"12345").decode(), "embedding_form", "5 bytes"),
    ([], "embedding_length", "0 numbers, expected 1 to 4096"),
    ("", "embedding_length", "0 numbers"),
    ([1] * (MOST_NUMBERS + 1), "embedding_length", "4097 numbers"),
    ([float("nan"), 1], "not_finite", "NaN"),
    ([1, float("-inf")], "not_finite", "Infinity"),
    ([10**400], "not_finite", "1.8e308"),
    (base64_of(float("nan")), "not_finite", "NaN"),
    ([0, 0.0, -0.0], "zero_vector", "no direction"),
    (base64_of(0, 0), "zero_vector", "no direction"),
]


@pytest.mark.parametrize(("value", "code", "message"), WRONG)
def test_what_is_no_vector(value, code, message):
    with pytest.raises(PydanticCustomError) as raised:
        unit_vector(value)
    assert raised.value.type == code
    assert message in raised.value.message()


@pytest.mark.parametrize(("value", "code", "message"), WRONG)
def test_a_wrong_vector_is_a_problem_that_names_its_segment(client, backend, value, code, message):
    segments = [{"id": 1, "text": "right"}, {"id": 2, "text": "wrong", "embedding": value}]
    body = json.dumps(embed_body(segments=segments))
    response = client.post("/embed", content=body, headers={"Content-Type": "application/json"})
    assert_problem(response, 422, "invalid_input", code, message)
    (error,) = response.json()["errors"]
    assert error["location"] == "body.segments.1.embedding"
    assert backend.asked == []


@pytest.mark.parametrize("embedding", [[3, 4], base64_of(3, 4)])
@pytest.mark.parametrize(
    ("text", "kept"),
    [({"text": "chart"}, "chart"), ({}, ""), ({"text": ""}, ""), ({"text": None}, "")],
)
def test_a_segment_with_a_vector_may_lack_its_text(client, backend, embedding, text, kept):
    body = embed_body(segments=[{"id": 1, "embedding": embedding, "page": 2, **text}])
    assert client.post("/embed", json=body).status_code == 200
    assert backend.asked[0].segments == (Segment(1, kept, None, None, {"page": 2}, UNIT),)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "segments.0: a text is required, unless there is an embedding or an image"),
        ({"embedding": None}, "segments.0: a text is required"),
        ({"text": " ", "embedding": None}, "white space"),
        ({"text": "a\u0000", "embedding": [1]}, "null character"),
        ({"text": "x" * 101, "embedding": [1]}, "101 characters"),
        ({"text": 5, "embedding": [1]}, "segments.0.text"),
    ],
)
def test_a_segment_needs_a_text_or_a_vector(client, backend, fields, message):
    body = embed_body(segments=[{"id": 1, **fields}])
    assert_problem(client.post("/embed", json=body), 422, "invalid_input", message)
    assert backend.asked == []


def test_segments_without_vectors_are_as_before(client, backend):
    client.post("/embed", json=with_segment())
    assert backend.asked[0].segments == (Segment(1, "RSI"),)


def test_a_search_by_a_vector(client, backend):
    fields = {"embedding": [3, 4], "embedding_type": "frame", "top_k": 5}
    body = client.post("/search", json=fields).json()
    assert (body["query"], body["embedding_type"], len(body["results"])) == (None, "frame", 1)
    client.post("/search", json={**fields, "query": "RSI", "mode": "hybrid"})
    search, hybrid = Search("frame", 5), Search("frame", 5, mode="hybrid", text="RSI")
    own = (("frame", UNIT),)
    assert backend.asked == [Query("", search, own), Query("RSI", hybrid, own)]


def test_a_cursor_is_of_its_vector(client, backend):
    def key_of(**fields):
        client.post("/search", json={"cursor": "*", **fields})
        return backend.asked[-1].search.shape.cursor_key

    asked = [{"query": "x"}, {"embedding": [3, 4]}, {"embedding": [4, 3]}]
    asked.append({"query": "x", "embedding": [3, 4]})
    keys = [key_of(**fields) for fields in asked]
    assert len(set(keys)) == 4
    assert key_of(embedding=base64_of(6, 8)) == keys[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "query: is required, unless there is an embedding"),
        ({"query": None}, "query: is required"),
        ({"embedding": [0]}, "zeros only"),
        ({"embedding": [1], "query": " "}, "white space"),
        ({"embedding": [1], "mode": "keyword"}, "keyword compares words; send query too"),
        ({"embedding": [1], "mode": "hybrid"}, "hybrid compares words; send query too"),
        ({"embedding": [1], "highlight": True}, "words of the query; send query too"),
    ],
)
def test_a_search_needs_a_query_or_a_vector(client, backend, fields, message):
    assert_problem(client.post("/search", json=fields), 422, "invalid_input", message)
    batch = client.post("/search/batch", json={"queries": [{"query": "x"}, fields]})
    assert_problem(batch, 422, "invalid_input", message, "queries.1")
    assert backend.asked == []


def test_moments_by_vectors(client, backend):
    fields = {"embeddings": {"clip": [3, 4]}, "types": {"clip": 2}, "mode": "semantic"}
    assert client.post("/search/moments", json=fields).json()["query"] is None
    client.post("/search/moments", json={"query": "RSI", "embeddings": {"clip": [3, 4]}})
    alone, beside = backend.asked
    own = (("clip", UNIT),)
    assert alone == Query("", MomentSearch((("clip", 2.0),), 10, mode="semantic"), own)
    assert (beside.text, beside.embeddings, beside.search.text) == ("RSI", own, "RSI")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "query: is required, unless there are embeddings"),
        ({"embeddings": {}, "query": "x"}, "embeddings"),
        ({"embeddings": {"video": [1]}, "query": "x"}, "embeddings"),
        ({"embeddings": {"clip": [0]}, "query": "x"}, "zeros only"),
        (
            {"embeddings": {"clip": [1]}, "types": {"frame": 1}, "query": "x"},
            "an embedding for clip, which isn't among the types",
        ),
        ({"embeddings": {"clip": [1]}, "types": {"clip": 1}}, "hybrid compares words"),
        (
            {"embeddings": {"clip": [1]}, "mode": "semantic"},
            "no embedding for transcript and frame; send query too",
        ),
    ],
)
def test_moments_need_a_query_or_a_vector_for_each_type(client, backend, fields, message):
    assert_problem(client.post("/search/moments", json=fields), 422, "invalid_input", message)
    assert backend.asked == []


def test_in_a_batch_what_only_the_model_knows_to_be_wrong_names_its_query(tmp_path):
    with whole_service(tmp_path) as service:
        queries = [{"query": "a"}, {"embedding": [1, 1, 1, 1, 1]}]
        response = service.client.post("/search/batch", json={"queries": queries})
    assert_problem(response, 422, "invalid_input", "queries.1: the embedding has 5 numbers")
