"""What is logged and counted of a request, and its id."""

import asyncio
import logging

import pytest
from fastapi.testclient import TestClient
from starlette.responses import PlainTextResponse
from test_ingress import URL, RecordingBackend

from deployments.core.settings import Settings
from deployments.request_ids import SaneRequestId, current_request_id, middlewares, work_for
from deployments.rest.application import create_app
from deployments.rest.request_log import CLIENT_GONE, RequestLog


@pytest.fixture
def observed():
    return []


@pytest.fixture
def client(observed):
    def observe(route, method, status, seconds):
        assert seconds > 0
        observed.append((route, method, status))

    backend = RecordingBackend()
    app = create_app(backend, Settings(embeddings_max_body_bytes=1024), observe)
    with TestClient(app, URL, raise_server_exceptions=False) as client:
        client.backend = backend
        yield client


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        ("GET", "/search/clips?query=secret", {}, ("/search/clips", "GET", 200)),
        ("GET", "/search/clips", {}, ("/search/clips", "GET", 422)),
        ("DELETE", "/media/secret", {}, ("/media/{media_item_id:path}", "DELETE", 200)),
        ("GET", "/v1/models/secret", {}, ("/v1/models/{model:path}", "GET", 500)),
        ("GET", "/secret", {}, ("none", "GET", 404)),
        ("GET", "/stats", {"Origin": "https://secret.example"}, ("none", "GET", 403)),
        ("GET", "/health/live?secret", {}, ("/health/live", "GET", 200)),
    ],
)
def test_a_request_is_known_by_its_route(client, observed, caplog, method, path, headers, expected):
    with caplog.at_level(logging.DEBUG, "deployments.rest.request_log"):
        client.request(method, path, headers=headers)
    assert observed == [expected]
    (record,) = (r for r in caplog.records if r.name == "deployments.rest.request_log")
    assert (record.http_route, record.http_method, record.http_status) == expected
    assert record.getMessage().startswith(f"{method} {expected[0]} {expected[2]} in ")
    assert "secret" not in caplog.text
    assert record.levelno == (logging.DEBUG if "health" in path else logging.INFO)


def test_a_failure_of_the_service_is_a_500(client, observed):
    client.backend.error = RuntimeError("unforeseen")
    assert client.get("/stats").status_code == 500
    assert observed == [("/stats", "GET", 500)]


def test_a_client_that_has_gone_is_noted(observed):
    async def app(scope, receive, send):
        raise asyncio.CancelledError

    async def run():
        log = RequestLog(app, lambda *request: observed.append(request[:3]))
        await log({"type": "http", "path": "/x", "method": "GET"}, None, None)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert observed == [("none", "GET", CLIENT_GONE)]


async def echo(scope, receive, send):
    ids = [value for name, value in scope["headers"] if name == b"x-request-id"]
    await PlainTextResponse(b"|".join(ids))(scope, receive, send)


@pytest.mark.parametrize("given", [b"a", b"A-Z/0:9=+~._", b"x" * 128])
def test_a_sane_id_stays(given):
    assert (
        TestClient(SaneRequestId(echo)).get("/", headers={"X-Request-ID": given}).content == given
    )


@pytest.mark.parametrize(
    "given", [[], [b""], [b"x" * 129], [b"a b"], [b"\xff"], [b'"'], [b"a,b"], [b"a", b"b"]]
)
def test_any_other_is_replaced_by_a_new_one(given):
    client = TestClient(SaneRequestId(echo))
    headers = [(b"x-request-id", value) for value in given]
    first, second = (client.get("/", headers=headers).text for _ in range(2))
    assert len(first) == len(second) == 36
    assert first != second


def test_serve_is_given_this_middleware():
    assert [each.cls for each in middlewares()] == [SaneRequestId]


def test_a_task_works_for_several_requests_at_once():
    async def run():
        async def task():
            work_for(["b", "a", "", "b"])
            return current_request_id()

        return await asyncio.create_task(task()), current_request_id()

    assert asyncio.run(run()) == ("b,a", "")
