"""A service with API keys: who gets in, what it opens, and what it writes into logs and metrics."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import requests
import yaml

from deployments import serve_process
from tests.monitoring.expressions import alert_expressions, dashboard_expressions, metrics_in
from tests.serve.logs import log_files, replica_lines
from tests.serve.prometheus import wait_for_metrics
from tests.serve.service import ROOT, Service

FULL, READ_ONLY = "a-full-key-of-the-tests", "a-read-only-key-of-the-tests"
KEYS = {"EMBEDDINGS_API_KEY": FULL, "EMBEDDINGS_READ_ONLY_API_KEY": READ_ONLY}
EMBED = {"media_item_id": 1, "embedding_type": "transcript"}
LOOPBACK = ("127.0.0.1", "::1")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    with Service(folder, environment=KEYS, log_level="DEBUG") as running:
        yield running


def ask(service, method, path, key=None, request_id=None, **arguments):
    headers = {"X-API-Key": key, "X-Request-ID": request_id}
    headers = {name: value for name, value in headers.items() if value is not None}
    url = service.url + path
    return requests.request(method, url, headers=headers, timeout=60, **arguments)


def embed(service, text, key=FULL):
    body = EMBED | {"segments": [{"id": text, "text": text}]}
    return ask(service, "POST", "/embed", key, json=body)


def search(service, text, key=READ_ONLY, request_id=None):
    return ask(service, "POST", "/search", key, request_id, json={"query": text})


def test_keys_open_what_they_are_for(guarded):
    assert embed(guarded, "kept by a full key").status_code == 200
    assert embed(guarded, "not kept", READ_ONLY).status_code == 403
    found = search(guarded, "kept by a full key")
    assert found.json()["results"][0]["metadata"]["text"] == "kept by a full key"
    for key in (None, "wrong-key-of-nobody", FULL[:-1]):
        answer = search(guarded, "kept", key)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert ask(guarded, "DELETE", "/media/1", READ_ONLY).status_code == 403
    ready = ask(guarded, "GET", "/health/ready").json()
    assert (ready["status"], ready["stats"]) == ("healthy", None)


def test_a_large_body_of_a_stranger_is_refused_before_it_has_come(guarded):
    def endless():
        for _ in range(10_000):
            yield b" " * 100_000

    try:
        answer = requests.post(f"{guarded.url}/embed", data=endless(), timeout=60)
        assert answer.status_code == 401
    except requests.ConnectionError:
        # The service closes the connection while the client still writes.
        pass
    assert ask(guarded, "GET", "/health/live").status_code == 200


@pytest.mark.parametrize("given", ["a", "0d5e/1:2.3_4~5=", "x" * 128])
def test_a_sane_request_id_comes_back(guarded, given):
    assert search(guarded, "x", request_id=given).headers["X-Request-ID"] == given
    assert search(guarded, "x", None, given).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 129, "é".encode(), b"\xff", "{}", "a,b"])
@pytest.mark.parametrize(
    ("path", "key", "status"),
    [("/stats", READ_ONLY, 200), ("/stats", None, 401), ("/nowhere", FULL, 404)],
)
def test_another_request_id_is_replaced(guarded, given, path, key, status):
    answer = ask(guarded, "GET", path, key, given)
    assert answer.status_code == status
    assert len(answer.headers["X-Request-ID"]) == 36
    assert "," not in answer.headers["X-Request-ID"]


def lines_of(service, deployment, request_id):
    deadline = time.monotonic() + 30
    while True:
        lines = [
            line
            for line in replica_lines(service, deployment)
            if request_id in line.get("request_id", "").split(",")
        ]
        if lines:
            return lines
        assert time.monotonic() < deadline, f"no line of {deployment} has {request_id}"
        time.sleep(0.2)


def test_a_request_s_id_is_in_the_lines_of_every_part(guarded):
    name = f"follow-{uuid4()}"
    assert search(guarded, "one search alone", request_id=name).status_code == 200
    line = lines_of(guarded, "Ingress", name)[-1]
    assert (line["http_method"], line["http_route"], line["http_status"]) == (
        "POST",
        "/search",
        200,
    )
    assert line["duration_ms"] > 0
    assert lines_of(guarded, "Encoder", name)[0]["message"].startswith("Encoded 1 queries")
    assert lines_of(guarded, "Index", name)[0]["message"].startswith("Answered 1 searches")


def test_searches_that_share_calls_keep_their_ids(guarded):
    names = [f"shared-{uuid4()}" for _ in range(48)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda name: search(guarded, name, request_id=name), names))
    for name in names:
        assert lines_of(guarded, "Encoder", name)
        assert lines_of(guarded, "Index", name)
    together = max(
        (line.get("request_id", "").split(",") for line in replica_lines(guarded, "Encoder")),
        key=len,
    )
    assert len(together) > 1
    assert set(together) <= set(names)


def test_neither_texts_nor_keys_are_in_any_log(guarded):
    query, text = f"secretquery{uuid4().hex}", f"secrettext{uuid4().hex}"
    assert embed(guarded, text).status_code == 200
    assert search(guarded, query).status_code == 200
    for path in ("/search/transcripts", "/search/nowhere", "/embeddings/search"):
        ask(guarded, "GET", path, READ_ONLY, params={"query": query})
        ask(guarded, "GET", path, query, params={"query": query})
    wrong = {"query": query, "top_k": -1}
    assert ask(guarded, "GET", "/search/clips", FULL, params=wrong).status_code == 422
    assert ask(guarded, "DELETE", f"/media/{text}", FULL).status_code == 200
    body = {"input": query, "model": "all-MiniLM-L6-v2"}
    assert ask(guarded, "POST", "/v1/embeddings", READ_ONLY, json=body).status_code == 200
    name = f"last-{uuid4()}"
    search(guarded, query, request_id=name)
    assert lines_of(guarded, "Ingress", name)
    files = log_files(guarded)
    assert any("Ingress" in file.name for file in files)
    for secret in (query, text, FULL, READ_ONLY):
        assert [file for file in files if secret.encode() in file.read_bytes()] == []


def listening(service):
    """Each listening socket of the service's processes: address, port and process."""
    root = psutil.Process(service.pid)
    for process in [root, *root.children(recursive=True)]:
        try:
            command = " ".join(process.cmdline())
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    yield connection.laddr.ip, connection.laddr.port, command
        except psutil.NoSuchProcess:
            continue


def documented_processes():
    """The names in the guide's table of ports whose row says `all interfaces`."""
    page = ROOT / "deployments/web/guide/access.md"
    rows = [line.split("|") for line in page.read_text().splitlines()]
    return [
        row[1].strip().strip("`") for row in rows if len(row) > 4 and "all interfaces" in row[3]
    ]


def test_only_documented_ports_are_open_to_others(guarded):
    documented = documented_processes()
    assert documented
    own = [guarded.environment[f"RAY_SERVE_HAPROXY_{name}_PORT"] for name in ("STATS", "METRICS")]
    expected = {int(port) for port in (guarded.url.rsplit(":", 1)[1], *own)}
    deadline = time.monotonic() + 60
    on_loopback: set[int] = set()
    # While Serve replaces HAProxy's process, neither of the two may be in the list.
    while not expected <= on_loopback:
        assert time.monotonic() < deadline, f"{expected} aren't all among {on_loopback}"
        for address, port, command in listening(guarded):
            if address in LOOPBACK:
                on_loopback.add(port)
            else:
                assert any(name in command for name in documented), (address, port, command)


def test_no_port_answers_without_a_key_or_takes_a_job(guarded):
    """By whatever way around HAProxy: each replica listens too, and so do Ray's own processes."""
    asked = (("GET", "/stats"), ("POST", "/search"), ("POST", "/api/job_agent/jobs/"))
    for address, port, _ in listening(guarded):
        host = "127.0.0.1" if address in ("0.0.0.0", "::") else address
        for method, path in asked:
            url = f"http://{host}:{port}{path}"
            try:
                body = {"query": "x", "entrypoint": "x"}
                answer = requests.request(method, url, json=body, timeout=5)
            except requests.RequestException:
                continue  # not HTTP
            # Prometheus endpoints and HAProxy's statistics answer all paths alike.
            kind = answer.headers.get("Content-Type", "")
            assert answer.status_code >= 400 or "json" not in kind, (url, answer.text)


def dashboard(service):
    (port,) = (
        port
        for address, port, command in listening(service)
        if "dashboard/dashboard.py" in command and address in LOOPBACK
    )
    return f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("path", ["/api/jobs/", "/api/serve/applications/"])
def test_the_dashboard_needs_a_token_and_shows_no_key(guarded, path):
    url = dashboard(guarded) + path
    assert requests.get(url, timeout=30).status_code == 401
    token = (Path.home() / ".ray" / "auth_token").read_text().strip()
    answer = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=30)
    assert answer.status_code == 200
    assert FULL not in answer.text
    assert READ_ONLY not in answer.text


def test_a_job_of_a_stranger_is_refused(guarded):
    job = {"entrypoint": "true"}
    assert requests.post(f"{dashboard(guarded)}/api/jobs/", json=job, timeout=30).status_code == 401


def test_requests_are_counted_by_route_and_status(guarded):
    assert search(guarded, "counted").status_code == 200
    assert search(guarded, "refused", None).status_code == 401
    ask(guarded, "DELETE", "/media/no-such-item", FULL)
    requests_total = "embeddings_http_requests_total"
    metrics = wait_for_metrics(
        guarded,
        lambda found: (
            found.value(requests_total, route="/media/{media_item_id:path}", status="200")
            and found.value(requests_total, status="401")
            and found.value("embeddings_ingress_queries_total")
            and found.value("embeddings_encoder_call_seconds_count", priority="query")
            and found.value("embeddings_ready") == 1
        ),
    )
    assert metrics.value(requests_total, route="/search", method="POST", status="200") >= 1
    assert metrics.value("embeddings_http_request_seconds_count", route="/search") >= 1
    queries = metrics.value("embeddings_ingress_queries_total")
    assert queries >= metrics.value("embeddings_ingress_encoder_calls_total") >= 1
    assert metrics.value("embeddings_ingress_waiting_searches") == 0


def test_the_dashboard_and_the_alerts_know_serve_s_metrics(guarded):
    """Those of the service itself are checked against its code, without a cluster."""
    expressions = dashboard_expressions() | alert_expressions()
    asked = {
        name
        for name in set().union(*map(metrics_in, expressions.values()))
        if name.startswith("ray_serve_")
    }
    assert asked
    of_the_index = {"application": "index", "deployment": "Index"}
    wait_for_metrics(
        guarded,
        lambda found: all(
            found.value(name.removeprefix("ray_"), **of_the_index) is not None for name in asked
        ),
    )


def test_an_open_address_without_a_key_serves_nothing(tmp_path, monkeypatch):
    """As with `serve run`, which doesn't look at the settings before it starts."""
    monkeypatch.setattr(serve_process, "_check_settings", lambda config: None)
    service = Service(tmp_path)
    config = yaml.safe_load(service.config.read_text())
    config["http_options"]["host"] = "0.0.0.0"
    service.config.write_text(yaml.safe_dump(config))
    try:
        service.begin()
        deadline = time.monotonic() + 120
        told = "SettingsError: the service would listen on 0.0.0.0 without an API key"
        while told not in service.log.read_text():
            assert time.monotonic() < deadline, service.log.read_text()[-3000:]
            time.sleep(0.5)
        with contextlib.suppress(requests.RequestException):
            assert requests.get(f"{service.url}/stats", timeout=5).status_code in (404, 503)
    finally:
        service.stop()
