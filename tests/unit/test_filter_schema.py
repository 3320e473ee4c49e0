"""Filters in requests: what they become, and which errors say what."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError
from test_ingress import URLS, RecordingBackend, assert_problem

from deployments.core.api.filter_schema import parsed
from deployments.core.api.search_requests import SearchRequest
from deployments.core.filters import (
    And,
    AnyOf,
    Between,
    Column,
    Exists,
    Filter,
    IdIn,
    Not,
    Or,
    Overlaps,
)
from deployments.core.search.filter_parser import (
    MOST_CONDITIONS,
    MOST_LEVELS,
    MOST_METADATA_CONDITIONS,
    MOST_VALUES,
)
from deployments.core.settings import Settings
from deployments.rest.application import create_app

MEDIA = Column.MEDIA_ITEM_ID


@pytest.fixture
def backend():
    return RecordingBackend()


@pytest.fixture
def client(backend):
    with TestClient(create_app(backend, Settings()), "http://localhost") as client:
        yield client


FORMS: list[tuple[dict[str, Any], Filter | None]] = [
    ({}, None),
    ({"ticker": "SPY"}, AnyOf(("ticker",), ("SPY",))),
    ({"ticker": {"$eq": 7}}, AnyOf(("ticker",), (), (7,))),
    ({"a.b": {"$ne": True}}, Not(AnyOf(("a", "b"), booleans=(True,)))),
    ({"a": {"$in": ["x", 2, 1, False]}}, AnyOf(("a",), ("x",), (1, 2), (False,))),
    ({"a": {"$nin": []}}, Not(AnyOf(("a",)))),
    ({"a": {"$gt": 1, "$lte": 2.5}}, Between(("a",), gt=1, lte=2.5)),
    ({"a": {"$exists": False}}, Not(Exists(("a",)))),
    (
        {"a": {"$gte": "x", "$exists": True}},
        And((Between(("a",), gte="x"), Exists(("a",)))),
    ),
    ({"media_item_id": 1}, IdIn(MEDIA, ("1",))),
    ({"media_item_id": {"$nin": ["b", 1, "1"]}}, Not(IdIn(MEDIA, ("1", "b")))),
    ({"start_time": {"$lt": 3}}, Between(Column.START_TIME, lt=3)),
    ({"$time": {"from": 1, "to": 2}}, Overlaps(1, 2)),
    ({"$time": {"to": 2}}, Overlaps(None, 2)),
    (
        {"$or": [{"a": 1}, {"$not": {"b": 2}}], "c": 3},
        And(
            (
                AnyOf(("c",), numbers=(3,)),
                Or((AnyOf(("a",), numbers=(1,)), Not(AnyOf(("b",), numbers=(2,))))),
            )
        ),
    ),
    ({"$and": [{"a": "x"}, {"$time": {"to": 2}}]}, And((Overlaps(None, 2), AnyOf(("a",), ("x",))))),
    ({"$and": [{"$and": [{"a": 1}]}, {"a": {"$eq": 1.0}}]}, AnyOf(("a",), numbers=(1,))),
    ({"$or": [{"a": 1}, {"a": {"$in": ["x", True]}}]}, AnyOf(("a",), ("x",), (1,), (True,))),
    ({"$or": [{"media_item_id": 1}, {"media_item_id": "b"}]}, IdIn(MEDIA, ("1", "b"))),
    ({"$and": [{"a": 1}, {"a": 2}]}, And(tuple(AnyOf(("a",), numbers=(n,)) for n in (1, 2)))),
    ({"$or": [{}, {}]}, And(())),
]


@pytest.mark.parametrize(("form", "expected"), FORMS)
def test_a_filter_of_a_body(client, backend, form, expected):
    assert client.post("/search", json={"query": "x", "filter": form}).status_code == 200
    assert backend.asked[0].search.filter == expected


def nested(levels: int) -> dict[str, Any]:
    return {"a": 1} if levels == 1 else {"$not": nested(levels - 1)}


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ([], "filter must be an object"),
        ("ticker", "filter must be an object"),
        ({"$nor": []}, "filter.$nor is no operator here; there are $and, $or, $not and $time"),
        ({"$and": []}, "filter.$and must be a list of at least one filter"),
        ({"$and": {"a": 1}}, "filter.$and must be a list"),
        ({"$or": [{"a": 1}, 5]}, "filter.$or.1 must be an object"),
        ({"$not": [{"a": 1}]}, "filter.$not must be an object"),
        ({"$or": [{"a": {"$near": 1}}]}, "filter.$or.0.a must have operators out of $eq,"),
        ({"a": {"$near": 1}}, "not '$near'"),
        ({"a": {"b": 1}}, "a field inside of another is written with a dot, outer.inner"),
        ({"a": {}}, "filter.a must have operators out of"),
        ({"a": None}, 'filter.a is null; {"$exists": false} finds segments without a value'),
        ({"a": [1]}, "filter.a must be a string, a number, true or false"),
        ({"a": {"$in": 5}}, "filter.a.$in must be a list"),
        ({"a": {"$in": [1, None]}}, "filter.a.$in is null"),
        ({"a": {"$exists": 1}}, "filter.a.$exists must be true or false"),
        ({"a": {"$gt": True}}, "filter.a.$gt must be a number or a string"),
        ({"a": {"$gt": None}}, "filter.a.$gt must be a number or a string"),
        ({"a": {"$gt": 1, "$lt": "b"}}, "filter.a must have numbers only or strings only"),
        ({"a": 2**63}, "filter.a integers are limited to 64 bits"),
        ({"a": "\x00"}, "null characters"),
        ({"a": "x" * 1001}, "filter.a has 1001 characters; at most 1000"),
        ({"a": {"$in": ["b", "é" * 1001]}}, "filter.a.$in has 1001 characters; at most 1000"),
        ({"a": {"$gte": "x" * 1001}}, "filter.a.$gte has 1001 characters; at most 1000"),
        ({"a..b": 1}, "filter.a..b must be 1 to 10 names with dots between"),
        ({"": 1}, "must be 1 to 10 names"),
        ({".".join("abcdefghijk"): 1}, "must be 1 to 10 names"),
        ({"x" * 513: 1}, "up to 512 characters"),
        ({"text": "RSI"}, "filter.text can't be filtered; keyword search finds texts"),
        ({"media_item_id": 1.5}, "filter.media_item_id must be an id, an integer or a string"),
        ({"media_item_id": True}, "filter.media_item_id must be an id"),
        ({"media_item_id": ""}, "must have 1 to 512 characters"),
        ({"media_item_id": {"$gt": 1}}, "out of $eq, $ne, $in, $nin, not '$gt'"),
        ({"start_time": {"$gt": "1"}}, "filter.start_time must have numbers of seconds"),
        ({"$time": {}}, 'filter.$time must be an object with "from", "to" or both'),
        ({"$time": {"from": 1, "until": 2}}, "filter.$time must be an object"),
        ({"$time": {"from": "1"}}, "filter.$time.from must be a number of seconds"),
        ({"$time": {"from": True}}, "filter.$time.from must be a number of seconds"),
        ({"$time": {"from": 10**400}}, "filter.$time.from must be a number of seconds"),
        ({"$time": {"to": -(10**400)}}, "filter.$time.to must be a number of seconds"),
        ({"$time": {"from": 3, "to": 2}}, "filter.$time ends (2) before it begins (3)"),
        (nested(MOST_LEVELS + 1), "is nested deeper than 10 levels"),
        ({"a": {"$in": list(range(MOST_VALUES + 1))}}, "at most 1000 values in all"),
        (
            {"$or": [{"segment_id": 1}] * (MOST_CONDITIONS + 1)},
            "filter.$or.100.segment_id is one too many: a filter has at most 100 conditions",
        ),
        (
            {"$or": [{"a": 1}] * (MOST_METADATA_CONDITIONS + 1)},
            "filter.$or.20.a is one too many: a filter has at most 20 conditions on metadata",
        ),
        ({f"a{i}": {"$ne": 1, "$gt": 0, "$lt": 9} for i in range(11)}, "filter.a10.$ne is one too"),
        ({"$and": [{"a": {"$exists": True, "$in": [1]}}] * 11}, "filter.$and.10.a.$exists is one"),
        ({"$or": [{}] * 2000}, "filter.$or.100 is one too many: a filter has at most 100"),
        ({"$and": [{"$or": [{}, {"start_time": 1}]}] * 51}, "filter.$and.50.$or.0 is one too many"),
        ({"media_item_id": {"$in": [1, "x" * 513]}}, "must have 1 to 512 characters"),
    ],
)
def test_a_wrong_filter_is_a_problem_that_says_where(client, backend, form, message):
    response = client.post("/search", json={"query": "x", "filter": form})
    assert_problem(response, 422, "invalid_input", "body.filter")
    assert message in response.json()["detail"]
    assert backend.asked == []


@pytest.mark.parametrize("path", ["/search", "/search/moments"])
@pytest.mark.parametrize("name", ["\ud800", "$\ud800", "a.\udfff"])
def test_names_that_are_no_text_are_problems_too(client, path, name):
    body = json.dumps({"query": "x", "filter": {name: {"$what": 1}}}).encode()
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert_problem(response, 422, "invalid_input", "body.filter")


def test_the_largest_filters_are_taken(client):
    for form in (
        nested(MOST_LEVELS),
        {"a": {"$in": list(range(MOST_VALUES))}},
        {"$or": [{"start_time": 1}] * MOST_CONDITIONS},
        {"$or": [{"a": 1}] * MOST_METADATA_CONDITIONS},
        {"$or": [{}] * MOST_CONDITIONS},
    ):
        assert client.post("/search", json={"query": "x", "filter": form}).status_code == 200


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, None),
        ({"media_item_id": "1"}, IdIn(MEDIA, ("1",))),
        ({"media_item_id": ["intro", "1"]}, IdIn(MEDIA, ("1", "intro"))),
        ({"from": "1.5"}, Overlaps(1.5, None)),
        ({"from": "1", "to": "2"}, Overlaps(1, 2)),
        ({"metadata.ticker": "SPY"}, AnyOf(("ticker",), ("SPY",))),
        ({"metadata.year": "2024"}, AnyOf(("year",), ("2024",), (2024,))),
        ({"metadata.a.b": ["1e2", "true"]}, AnyOf(("a", "b"), ("1e2", "true"), (100,), (True,))),
        ({"metadata.a": "1_0"}, AnyOf(("a",), ("1_0",))),
        ({"metadata.a": "nan"}, AnyOf(("a",), ("nan",))),
        ({"metadata.a": "1e999"}, AnyOf(("a",), ("1e999",))),
        (
            {"media_item_id": "1", "to": "9", "metadata.a": "x"},
            And((IdIn(MEDIA, ("1",)), Overlaps(None, 9), AnyOf(("a",), ("x",)))),
        ),
    ],
)
def test_a_filter_of_a_url(client, backend, url, parameters, expected):
    assert client.get(url, params={"query": "x"} | parameters).status_code == 200
    assert backend.asked[0].search.filter == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"from": "soon"}, "query.from"),
        ({"from": "3", "to": "2"}, "query.$time ends (2.0) before it begins (3.0)"),
        ({"metadata.": "x"}, "metadata. must be 1 to 10 names"),
        ({"metadata.$and": "x"}, "metadata.$and must be a list"),
        ({"metadata.text": "x"}, "metadata.text can't be filtered"),
        ({"media_item_id": ""}, "must have 1 to 512 characters"),
    ],
)
def test_a_wrong_filter_of_a_url_is_a_problem(client, backend, parameters, message):
    for url in URLS:
        response = client.get(url, params={"query": "x"} | parameters)
        assert_problem(response, 422, "invalid_input", "query.", message)
    assert backend.asked == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text() | st.sampled_from(["$and", "$not", "$time", "$in", "$gt", "start_time"]),
            inner,
            max_size=3,
        )
    ),
)


@given(json_values)
def test_any_value_is_a_filter_or_refused(value):
    message = "filter"
    try:
        hash(parsed(value))
    except PydanticCustomError as error:
        message = error.message()
    assert message.startswith("filter")


def test_the_documented_examples_are_filters(client):
    document = client.get("/openapi.json").json()["components"]["schemas"]["SearchRequest"]
    filter_form = document["properties"]["filter"]
    assert "$time" in filter_form["description"]
    for form in filter_form["examples"]:
        assert parsed(form) is not None
    for request in document["examples"]:
        SearchRequest.model_validate(request)


def test_exhausted_is_told_only_when_it_is_so(client, backend):
    backend.exhausted = True
    assert client.post("/search", json={"query": "x"}).json()["exhausted"] is True
    backend.exhausted = False
    assert "exhausted" not in client.post("/search", json={"query": "x"}).json()
