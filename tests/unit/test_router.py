"""The router for an API service: what it passes on and what it makes of errors."""

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployments.client import router as router_module
from deployments.client.async_client import AsyncClient
from deployments.client.router import search_router
from deployments.core.errors import (
    Forbidden,
    InvalidInput,
    NotReady,
    Overloaded,
    ServiceError,
    StoreDamaged,
    Unauthorized,
)
from deployments.rest.problems import error_response


@pytest.fixture
def ask(monkeypatch):
    """Asks an app with the router, whose service answers as `handler` says."""
    clients = []

    def ask(handler, path="/embeddings/search?query=x"):
        def client(_url, _api_key, **options):
            transport = httpx.MockTransport(handler)
            clients.append(AsyncClient("http://service", transport=transport, **options))
            return clients[-1]

        monkeypatch.setattr(router_module, "AsyncClient", client)
        app = FastAPI()
        app.include_router(search_router())
        with TestClient(app) as api:
            answer = api.get(path)
        assert clients[-1]._http.is_closed
        return answer

    return ask


def test_the_query_string_goes_through_as_it_is(ask):
    seen = []

    def handle(request):
        seen.append(request.url.raw_path)
        return httpx.Response(200, json={"results": [], "query": "a b"})

    path = "/embeddings/search?query=a+b%26c&top_k=3&metadata.ticker=SPY&metadata.ticker=QQQ"
    answer = ask(handle, path)
    assert seen == [path.encode()]
    assert (answer.status_code, answer.json()) == (200, {"results": [], "query": "a b"})


def own(error):
    response = error_response(error)
    return httpx.Response(response.status_code, headers=response.headers, content=response.body)


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (InvalidInput("top_k"), 422, "invalid_input", None),
        (Overloaded("full"), 429, "overloaded", "1"),
        (NotReady("starting"), 503, "not_ready", "2"),
        (StoreDamaged("page 7"), 503, "store_damaged", None),
        (Unauthorized("no key"), 502, "bad_gateway", None),
        (Forbidden("read-only"), 502, "bad_gateway", None),
        (ServiceError("broken"), 502, "bad_gateway", None),
    ],
)
def test_errors_are_passed_on_or_are_a_bad_gateway(ask, error, status, code, retry_after):
    answer = ask(lambda _: own(error))
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, retry_after)
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    # Whose key is wrong is nothing for the callers of the API service.
    assert (problem["detail"] == error.detail) == (error.status not in (401, 403))


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (httpx.ConnectError("refused"), 503, "unreachable"),
        (httpx.ReadTimeout("late"), 504, "timed_out"),
    ],
)
def test_a_service_that_does_not_answer(ask, failure, status, code):
    def handle(request):
        raise failure

    answer = ask(handle)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers.get("Retry-After") == ("2" if status == 503 else None)


def test_what_is_no_answer_of_the_service_is_a_bad_gateway(ask):
    assert ask(lambda _: httpx.Response(200, text="<html>")).status_code == 502


def test_a_connection_that_broke_is_tried_once_more(ask):
    answers = iter([httpx.RemoteProtocolError("closed"), httpx.Response(200, json={})])

    def handle(request):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert ask(handle).status_code == 200


@pytest.mark.parametrize("status", [301, 400, 404, 405, 413, 429, 500, 502, 503, 504])
def test_what_a_proxy_answers_blames_nobody_and_names_no_address(ask, status):
    answer = ask(lambda _: httpx.Response(status, text="<html>", headers={"Location": "http://in"}))
    expected = (503, "unreachable", "2") if status == 503 else (502, "bad_gateway", None)
    problem = answer.json()
    retry_after = answer.headers.get("Retry-After")
    assert (answer.status_code, problem["code"], retry_after) == expected
    assert problem["detail"] == "what answers for the embeddings service has no answer of it"
    assert "http://" not in answer.text


def test_an_app_that_was_not_started_answers_too(monkeypatch):
    clients = []

    def client(_url, _api_key, **options):
        transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"results": []}))
        clients.append(AsyncClient("http://service", transport=transport, **options))
        return clients[-1]

    monkeypatch.setattr(router_module, "AsyncClient", client)
    inner, outer = FastAPI(), FastAPI()
    inner.include_router(search_router())
    outer.mount("/api", inner)
    with TestClient(outer) as api:
        assert api.get("/api/embeddings/search?query=x").json() == {"results": []}
    assert [each._http.is_closed for each in clients] == [True]
