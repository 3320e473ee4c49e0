"""The headers of answers and pages."""

import base64
import hashlib
import re

import pytest
from fastapi.responses import HTMLResponse
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from test_ingress import URL, RecordingBackend

from deployments.core.settings import Settings
from deployments.rest.application import create_app
from deployments.rest.secure_headers import ALWAYS, PAGES, SecureHeaders


@pytest.fixture
def client():
    app = create_app(RecordingBackend(), Settings())
    with TestClient(app, URL, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("path", ["/stats", "/nowhere", "/docs", "/search/clips", "/v1/nothing"])
def test_every_answer_has_them(client, path):
    headers = client.get(path).headers
    assert {name: headers[name] for name in ALWAYS} == ALWAYS


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_no_other_origin_is_let_in(client, method):
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "GET"}
    answer = client.request(method, "/stats", headers=headers)
    assert not any(name.lower().startswith("access-control") for name in answer.headers)


def policy_of(header):
    return {name: rest for name, *rest in (part.split() for part in header.split(";"))}


def test_the_docs_page_may_run_its_own_scripts_only(client):
    answer = client.get("/docs")
    policy = policy_of(answer.headers["Content-Security-Policy"])
    (script,) = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == ["https://cdn.jsdelivr.net", f"'sha256-{digest}'"]
    assert policy["default-src"] == policy["frame-ancestors"] == ["'none'"]
    assert policy["connect-src"] == ["'self'"]
    assert answer.headers["X-Frame-Options"] == "DENY"


def test_another_page_gets_the_strict_policy():
    async def page(_):
        return HTMLResponse("<p>hello")

    app = Starlette(routes=[Route("/", page)], middleware=[Middleware(SecureHeaders)])
    headers = TestClient(app).get("/").headers
    assert {name: headers[name] for name in PAGES} == PAGES
    policy = policy_of(headers["Content-Security-Policy"])
    assert policy["script-src"] == policy["style-src"] == ["'self'"]
    assert policy["default-src"] == ["'none'"]
