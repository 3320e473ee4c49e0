"""The command `backfill` over HTTP, to a server that answers what a test says."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from deployments.backfill.destination import Postponed, Refused, Unexplained, outcome
from deployments.backfill.http_destination import DEFAULT_RETRY_AFTER_S, HttpDestination, by_http
from deployments.client import AsyncClient, Retries
from deployments.core.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    Overloaded,
    ServiceError,
    StoreDamaged,
    StoreFull,
)
from deployments.core.segments import EmbeddingType, Segment, Upsert, UpsertResult
from deployments.rest.problems import error_response

UPSERT = Upsert(
    EmbeddingType.FRAME,
    7,
    (
        Segment("a", "one", 1, None, {"tags": ["x"]}),
        Segment(2, "two"),
        Segment(3, "", embedding=bytes(range(8))),
    ),
    replace=True,
)


async def send(handler: Callable[[httpx.Request], httpx.Response]) -> UpsertResult:
    transport = httpx.MockTransport(handler)
    retries = Retries(attempts=1)
    async with AsyncClient("http://service", transport=transport, retries=retries) as client:
        return await HttpDestination(client).embed(UPSERT)


async def test_a_request_is_that_of_embed_and_its_answer_is_counted() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.path, json.loads(request.content)))
        counts = {"embeddings_created": 2, "changed": 1, "removed": 3, "truncated": 1}
        return httpx.Response(200, json={"media_item_id": 7, "embedding_type": "frame", **counts})

    assert await send(answer) == UpsertResult(stored=2, changed=1, removed=3, truncated=1)
    segments = [
        {"tags": ["x"], "id": "a", "text": "one", "start_time": 1, "end_time": None},
        {"id": 2, "text": "two", "start_time": None, "end_time": None},
        {"id": 3, "start_time": None, "end_time": None, "embedding": "AAECAwQFBgc="},
    ]
    body = {"media_item_id": 7, "embedding_type": "frame", "replace": True, "segments": segments}
    assert seen == [("POST", "/embed", body)]


def own(error: ServiceError) -> httpx.Response:
    """What the service answers for one of its errors."""
    response = error_response(error)
    return httpx.Response(response.status_code, headers=response.headers, content=response.body)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Overloaded("full"), Postponed),
        (NotReady("starting"), Postponed),
        (DeadlineExceeded("late"), Postponed),
        (StoreFull("no room"), Postponed),
        (InvalidInput("wrong"), Refused),
        (BodyTooLarge("long"), Refused),
        (StoreDamaged("page 7"), ServiceError),
        (ServiceError("broken"), ServiceError),
    ],
)
async def test_errors_mean_the_same_by_http_and_by_handle(
    error: ServiceError, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=error.detail) as raised:
        await send(lambda _: own(error))
    by_handle = outcome(error)
    assert isinstance(by_handle, kind)
    if isinstance(by_handle, Postponed):
        assert isinstance(raised.value, Postponed)
        assert raised.value.retry_after_s == by_handle.retry_after_s == error.retry_after_s


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
async def test_what_a_proxy_answers_is_worth_repeating(status: int) -> None:
    with pytest.raises(Postponed, match=str(status)) as raised:
        await send(lambda _: httpx.Response(status, text="<html>"))
    assert raised.value.retry_after_s == DEFAULT_RETRY_AFTER_S
    with pytest.raises(Postponed) as raised:
        await send(lambda _: httpx.Response(status, headers={"Retry-After": "7"}))
    assert raised.value.retry_after_s == 7


@pytest.mark.parametrize("status", [301, 401, 403, 404, 501])
async def test_other_answers_end_the_backfill(status: int) -> None:
    with pytest.raises(ServiceError, match=rf"http://service.* answered {status}"):
        await send(lambda _: httpx.Response(status))


async def test_serves_own_error_for_a_killed_ingress_is_worth_repeating() -> None:
    with pytest.raises(Unexplained, match="500") as raised:
        await send(lambda _: httpx.Response(500, text="Internal Server Error"))
    assert raised.value.retry_after_s == DEFAULT_RETRY_AFTER_S


async def test_a_service_that_does_not_answer_is_worth_repeating() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    with pytest.raises(Postponed, match="doesn't answer: connection refused"):
        await send(fail)


async def test_the_key_is_sent_as_a_bearer_token() -> None:
    key, older = "0123456789abcdef", "fedcba9876543210"
    for keys in (key, f"{key},{older}", f" {key}\n{older}\n"):
        async with by_http("http://localhost:8004", keys) as destination:
            assert destination._client._http.headers["Authorization"] == f"Bearer {key}"
    async with by_http("http://localhost:8004", None) as destination:
        assert "Authorization" not in destination._client._http.headers


@pytest.mark.parametrize("key", ["short", " , ", "0123456789abcdef\u2026"])
async def test_what_cannot_be_a_key_is_told_without_showing_it(key: str) -> None:
    with pytest.raises(InvalidInput, match="the API key can't be used: ") as raised:
        async with by_http("http://localhost:8004", key):
            pass
    assert key not in str(raised.value)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "deployments.client.cli", "backfill", *arguments]
    return subprocess.run(whole, capture_output=True, text=True, timeout=60)


def test_the_command_line_has_exit_code_1_for_what_could_not_be_done(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"media_item_id": 1, "text": "x"}\n')
    for arguments, message in (
        ([str(source), "--url", "ftp://nowhere"], "Error: the service's URL is 'ftp://nowhere'"),
        ([str(source), "--unknown"], "No such option"),
        ([], "Missing argument"),
        ([str(source), "--map", "text"], "--map is 'text'; expected a pair"),
        ([str(source), "--metadata", "id=1"], "--metadata can't set id"),
        ([str(source), "--media-item-pattern", "("], "--media-item-pattern is '('"),
        ([str(source), "--replace", "--limit", "1"], "would cut a media item off"),
        ([str(tmp_path / "missing.csv")], "doesn't exist"),
        ([str(source), "--quarantine", str(source)], "is a source and would be overwritten"),
    ):
        done = command(*arguments)
        assert done.returncode == 1, done
        assert message in done.stderr


def test_the_command_line_prints_what_a_dry_run_found(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"media_item_id": 1, "text": "x"}\n{"media_item_id": 1, "text": ""}\n')
    done = command(str(source), "--dry-run", "--json")
    assert done.returncode == 2
    counted = json.loads(done.stdout)
    assert (counted["rows"], counted["valid"], counted["quarantined"]) == (2, 1, 1)
    assert counted["exit_code"] == 2
    assert "must contain more than white space" in done.stderr


def test_a_dry_run_keeps_the_quarantine_that_goes_with_the_progress(tmp_path: Path) -> None:
    source, kept = tmp_path / "rows.jsonl", tmp_path / "quarantine.jsonl"
    source.write_text('{"media_item_id": 1, "text": ""}\n{"media_item_id": 1, "text": "x"}\n')
    before = {"source": str(tmp_path / "other.jsonl"), "row": 7, "reason": "bad", "raw": ""}
    kept.write_text(json.dumps(before) + "\n")
    files = ("--quarantine", str(kept), "--progress", str(tmp_path / "progress.json"))
    for _ in range(2):
        assert command(str(source), "--dry-run", *files).returncode == 2
    first, *others = [json.loads(line) for line in kept.read_text().splitlines() if line]
    assert first == before
    assert [(each["source"], each["row"]) for each in others] == [(str(source), 1)]
    assert not (tmp_path / "progress.json").exists()


def test_the_client_needs_neither_ray_nor_torch() -> None:
    program = (
        "import sys\n"
        "from deployments.client import cli\n"
        "from deployments.backfill import http_destination, run, sources\n"
        "print(sorted({'ray', 'torch', 'fastapi', 'faiss', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
