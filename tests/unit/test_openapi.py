"""The OpenAPI document tells of each route what it does, and shows requests, answers and errors."""

import pytest
from jsonschema import Draft202012Validator

from deployments.core.settings import Settings
from deployments.rest.application import create_app
from deployments.rest.openapi_examples import ANSWERS

DOCUMENT = create_app(None, Settings()).openapi()
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
each_route = pytest.mark.parametrize("route", OPERATIONS)


def check(example, schema):
    """Raises ValidationError if a schema of the document doesn't allow the example."""
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(example)


def resolved(schema):
    name = schema.get("$ref", "").rpartition("/")[2]
    return DOCUMENT["components"]["schemas"][name] if name else schema


def examples_of(content):
    found = [each["value"] for each in content.get("examples", {}).values()]
    return [*found, content["example"]] if "example" in content else found


@each_route
def test_it_says_what_it_does(route):
    operation = OPERATIONS[route]
    assert operation["summary"] != operation["operationId"]
    assert operation["summary"][0].isupper()
    assert len(operation["summary"]) <= 50
    assert operation["tags"]
    assert all("description" in each for each in operation.get("parameters", []))


@each_route
def test_it_shows_a_request(route):
    operation = OPERATIONS[route]
    for parameter in operation.get("parameters", []):
        shown = parameter.get("examples") or parameter["schema"].get("examples", [])
        for example in shown:
            check(example, parameter["schema"])
        assert shown or not parameter["required"], parameter["name"]
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        shown = resolved(schema)["examples"]
        assert shown
        for example in shown:
            check(example, schema)


@each_route
def test_it_shows_each_answer(route):
    """Also errors: problem documents, or OpenAI's form under /v1."""
    responses = OPERATIONS[route]["responses"]
    assert route.startswith("GET /health/live") or len(responses) > 1
    for status, response in responses.items():
        assert response["description"]
        ((media_type, content),) = response["content"].items()
        shown = examples_of(content)
        assert shown, status
        for example in shown:
            check(example, content["schema"])
        if media_type == "application/problem+json":
            assert {str(example["status"]) for example in shown} == {status}
        else:
            assert media_type == "application/json"
            assert status in ("200", "503") or "/v1/" in route


def test_every_route_has_its_example():
    assert ANSWERS.keys() == OPERATIONS.keys()


def test_errors_are_told_apart_by_their_codes():
    content = OPERATIONS["POST /embed"]["responses"]["503"]["content"]["application/problem+json"]
    assert {"not_ready", "store_unwritable", "store_damaged"} <= content["examples"].keys()
    assert all(name == each["value"]["code"] for name, each in content["examples"].items())
