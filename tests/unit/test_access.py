"""Who gets in, by which header, to which route; and that the rest isn't even read."""

import asyncio
import json
import re

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from test_ingress import URL, RecordingBackend

from deployments.core.errors import SettingsError, StoreDamaged
from deployments.core.exposure import check_exposure
from deployments.core.settings import Settings
from deployments.rest.access import OPEN_ROUTES
from deployments.rest.application import create_app
from deployments.rest.problems import CHALLENGE

FULL, FULL_OLD, READ_ONLY = "full-key-of-today", "full-key-of-last-year", "read-only-key-of-today"
SEARCH = {"query": "x"}
SEGMENT = {"id": 1, "text": "x"}
EMBED = {"media_item_id": 1, "embedding_type": "clip", "segments": [SEGMENT]}


def make_client(backend=None, url=URL, **settings):
    app = create_app(backend or RecordingBackend(), Settings(**settings))
    return TestClient(app, url, raise_server_exceptions=False, follow_redirects=False)


def keyed(backend=None):
    return make_client(
        backend,
        "http://embeddings.example:8004",
        embeddings_api_key=f"{FULL},{FULL_OLD}",
        embeddings_read_only_api_key=READ_ONLY,
    )


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([("Authorization", f"Bearer {FULL}")], 200),
        ([("Authorization", f"Bearer {FULL_OLD}")], 200),
        ([("authorization", f"bearer   {FULL}  ")], 200),
        ([("X-API-Key", FULL)], 200),
        ([("x-api-key", f" {READ_ONLY} ")], 200),
        ([("Authorization", "Basic dXNlcjpwYXNz"), ("X-API-Key", FULL)], 200),
        ([("Authorization", FULL)], 401),
        ([("Authorization", f"Basic {FULL}")], 401),
        ([("Authorization", f"Bearer{FULL}")], 401),
        ([("Authorization", "Bearer")], 401),
        ([("Authorization", "Bearer ")], 401),
        ([("Authorization", f"Bearer {FULL},{FULL_OLD}")], 401),
        ([("X-API-Key", "")], 401),
        ([("X-API-Key", FULL.upper())], 401),
        ([("X-API-Key", f"{FULL}x")], 401),
        ([("X-API-Key", FULL[:-1])], 401),
        ([("X-API-Key", f"Bearer {FULL}")], 401),
        ([("X-API-Key", "schlüssel".encode())], 401),
        ([("X-API-Key", b"\xff\xfe")], 401),
        ([("X-API-Key", FULL), ("X-API-Key", FULL)], 401),
        ([("X-API-Key", FULL), ("Authorization", f"Bearer {FULL}")], 401),
        ([("X-API-Key", FULL), ("Authorization", "Bearer wrong")], 401),
        ([("Cookie", f"key={FULL}")], 401),
    ],
)
def test_one_key_in_one_of_two_headers(headers, status):
    with keyed() as client:
        answer = client.post("/search", json=SEARCH, headers=headers)
        assert answer.status_code == status
        if status == 401:
            assert answer.headers["WWW-Authenticate"] == CHALLENGE
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["code"] == "unauthorized"
            assert FULL not in answer.text
        assert client.post(f"/search?api_key={FULL}", json=SEARCH).status_code == 401


def test_no_other_key_opens_anything():
    backend = RecordingBackend()
    with keyed(backend) as client:

        @given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF)))
        def run(key):
            for name, value in (("Authorization", f"Bearer {key}"), ("X-API-Key", key)):
                headers = {name: value.encode("latin-1")}
                assert client.post("/search", json=SEARCH, headers=headers).status_code == 401

        run()
    assert backend.asked == []


def operations():
    paths = create_app(None, Settings()).openapi()["paths"]
    return sorted((method.upper(), path) for path, methods in paths.items() for method in methods)


def test_what_each_key_may_do_is_decided_for_every_route():
    with keyed() as client:
        refused = {
            name: {
                (method, path): status
                for method, path in operations()
                if (status := client.request(method, path, headers=headers).status_code)
                in (401, 403)
            }
            for name, headers in {
                "none": {},
                "read-only": bearer(READ_ONLY),
                "full": bearer(FULL),
            }.items()
        }
    assert refused["full"] == {}
    assert refused["read-only"] == {
        ("DELETE", "/media/{media_item_id}"): 403,
        ("DELETE", "/migrations"): 403,
        ("POST", "/embed"): 403,
        ("POST", "/migrations"): 403,
        ("POST", "/migrations/rollback"): 403,
        ("POST", "/migrations/switch"): 403,
    }
    assert refused["none"] == {
        (method, path): 401 for method, path in operations() if path not in OPEN_ROUTES
    }


def test_a_read_only_key_stores_and_removes_nothing():
    backend = RecordingBackend()
    with keyed(backend) as client:
        for send in (
            lambda: client.post("/embed", json=EMBED, headers=bearer(READ_ONLY)),
            lambda: client.delete("/media/1", headers=bearer(READ_ONLY)),
            lambda: client.post("/embed/", json=EMBED, headers=bearer(READ_ONLY)),
            lambda: client.put("/search", json=SEARCH, headers=bearer(READ_ONLY)),
        ):
            answer = send()
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert backend.asked == []
        assert client.post("/embed", json=EMBED, headers=bearer(FULL)).status_code == 200


def test_a_wrong_key_is_an_error_in_openai_s_form_under_v1():
    with keyed() as client:
        answer = client.post("/v1/embeddings", json={}, headers=bearer("wrong"))
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == CHALLENGE
        assert answer.json()["error"]["code"] == "unauthorized"
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_methods_that_do_nothing_need_a_key_too():
    with keyed() as client:
        for method in ("OPTIONS", "HEAD", "TRACE"):
            assert client.request(method, "/search").status_code == 401
        assert client.request("OPTIONS", "/health/live").status_code == 401
        assert client.post("/health/ready").status_code == 401
        assert client.options("/search", headers=bearer(READ_ONLY)).status_code == 405


def test_open_routes_tell_nothing_of_what_is_stored():
    backend = RecordingBackend()
    with keyed(backend) as client:
        page = client.get("/").text
        for name in re.findall(r'(?:src|href)="(web/[^"]+)"', page):
            assert client.get(f"/{name}").status_code == 200
        assert client.get("/web/nothing").status_code == 404
        assert client.post("/web/page.js").status_code == 401
        assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 200
        assert client.get("/health/live").json() == {"status": "alive"}
        for key, stats in ((None, False), (READ_ONLY, True)):
            answer = client.get("/health/ready", headers=bearer(key) if key else {})
            assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
            assert (answer.json()["stats"] is not None) is stats
        assert client.get("/health").status_code == 401


def test_strangers_hear_that_it_is_not_ready_but_not_why():
    backend = RecordingBackend()
    backend.error = StoreDamaged("row 7 of media item 12")
    with keyed(backend) as client:
        answer = client.get("/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
        assert answer.json()["reason"] is None
        known = client.get("/health/ready", headers=bearer(READ_ONLY))
        assert "row 7 of media item 12" in known.json()["reason"]


def test_strangers_share_one_check():
    backend = RecordingBackend()
    with keyed(backend) as client:
        for _ in range(20):
            assert client.get("/health/ready").status_code == 200
        assert 1 <= backend.asked.count("check") < 20
        asked = backend.asked.count("check")
        for _ in range(5):
            client.get("/health/ready", headers=bearer(READ_ONLY))
        assert backend.asked.count("check") == asked + 5


def test_what_is_refused_is_not_read():
    """Neither a declared nor a chunked body: `receive` isn't called at all."""
    app = create_app(RecordingBackend(), Settings(embeddings_api_key=FULL))
    for path in ("/embed", "/v1/embeddings"):
        sent = []

        async def receive():
            raise AssertionError("the body was read")

        async def send(message, sent=sent):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "root_path": "",
            "headers": [(b"host", b"x"), (b"transfer-encoding", b"chunked")],
            "query_string": b"",
        }
        asyncio.run(app(scope, receive, send))
        assert sent[0]["status"] == 401
        assert b"unauthorized" in sent[1]["body"]


@pytest.mark.parametrize(
    ("url", "headers", "status"),
    [
        ("http://localhost:8004", {}, 200),
        ("http://127.0.0.1:8004", {}, 200),
        ("http://[::1]:8004", {}, 200),
        ("http://localhost", {"Origin": "http://localhost:3000"}, 200),
        ("http://localhost", {"Origin": "https://evil.example"}, 403),
        ("http://localhost", {"Origin": "null"}, 403),
        ("http://localhost", {"Origin": "http://[::1"}, 403),
        ("http://localhost", {"Origin": "http://[abc]"}, 403),
        ("http://localhost", {"X-Forwarded-For": "127.0.0.1"}, 200),
        ("http://evil.example:8004", {}, 403),
        ("http://evil.example:8004", {"X-Forwarded-Host": "localhost"}, 403),
        ("http://embeddings-service:8004", {}, 403),
        ("http://192.168.1.5:8004", {}, 403),
    ],
)
def test_without_a_key_only_this_machine_under_its_own_name(url, headers, status):
    backend = RecordingBackend()
    with make_client(backend, url) as client:
        for path in ("/embed", "/search"):
            answer = client.post(path, json=EMBED | SEARCH, headers=headers)
            assert answer.status_code == status
            if status == 403:
                assert answer.json()["code"] == "forbidden"
                assert "EMBEDDINGS_ALLOW_ANONYMOUS=1" in answer.json()["detail"]
        assert client.get("/health/live", headers=headers).status_code == 200
    assert len(backend.asked) == (2 if status == 200 else 0)


def test_everybody_is_let_in_only_when_told_so():
    with make_client(url="http://evil.example", embeddings_allow_anonymous=True) as client:
        assert client.post("/embed", json=EMBED).status_code == 200
        assert client.get("/health/ready").json()["stats"] is not None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", None])
def test_exposure_without_a_key_stops_the_start(host):
    with pytest.raises(SettingsError, match="set EMBEDDINGS_API_KEY, or http"):
        check_exposure(Settings(), host)
    check_exposure(Settings(embeddings_api_key=FULL), host)
    check_exposure(Settings(embeddings_read_only_api_key=READ_ONLY), host)
    check_exposure(Settings(embeddings_allow_anonymous=True), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_key(host):
    check_exposure(Settings(), host)


def test_the_document_tells_of_the_keys():
    document = create_app(None, Settings()).openapi()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "key"}
    embed = document["paths"]["/embed"]["post"]
    assert {"bearer": []} in embed["security"]
    assert {"401", "403"} <= set(embed["responses"])
    assert "security" not in document["paths"]["/health/live"]["get"]
    json.dumps(document)
