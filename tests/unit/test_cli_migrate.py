"""The command that changes the model, at a whole service without Ray."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_cli import run
from whole_service import WholeService, whole_service

from deployments.client import migrate_command
from deployments.client.sync_client import Client
from deployments.core.index.migration import Migration
from tests.fakes import write_tiny_model

OLD = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_model(tmp_path_factory.mktemp("m") / "tiny"))


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WholeService]:
    """A service with three segments, to which the command goes without a network."""
    with whole_service(tmp_path / "index") as running:

        def handle(request: httpx.Request) -> httpx.Response:
            answer = running.client.request(
                request.method, request.url.path, content=request.read(), headers=request.headers
            )
            return httpx.Response(answer.status_code, content=answer.content)

        def connect(url: str, api_key: str | None) -> Client:
            return Client(url, "", transport=httpx.MockTransport(handle))

        monkeypatch.setattr(migrate_command, "connect", connect)
        monkeypatch.setattr(migrate_command, "POLL_S", 0.02)
        texts = ("RSI above 70", "a moving average", "support")
        running.embed(1, [{"id": i, "text": text} for i, text in enumerate(texts)])
        yield running


def model_of(service: WholeService) -> str:
    return str(service.get("/stats").json()["model_name"])


def migrate(*arguments: str, code: int = 0, **options: Any) -> Any:
    done = run("migrate", *arguments, **options)
    assert done.exit_code == code, (done.stdout, done.stderr)
    return done


def test_it_tells_what_keeps_it_from_switching(
    service: WholeService, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch, tries = Migration._switch, iter([False])
    monkeypatch.setattr(
        Migration, "_switch", lambda self, record: next(tries, True) and switch(self, record)
    )
    done = migrate("--model", tiny, "--yes")
    assert done.stderr.replace("\n", " ").count("pause what writes") == 1
    assert "Searches use the new model" in done.stdout
    assert model_of(service) == tiny


def test_it_encodes_reports_asks_and_switches(
    service: WholeService, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate_command, "_confirmed", lambda: True)
    out = migrate("--model", tiny).stdout
    assert "overlap@10" in out
    rows = [line.split() for line in out.splitlines() if line.split()[:1] == ["transcript"]]
    assert [(row[1], row[-2:]) for row in rows] == 2 * [(OLD, ["1.00", "3"])]
    assert "All 3 segments have vectors of both models; searches use the old one." in out
    assert "Searches use the new model" in out
    assert model_of(service) == tiny
    assert "searches use the old one" in migrate("--rollback").stdout
    assert model_of(service) == OLD
    migrate("--switch")
    assert model_of(service) == tiny
    assert migrate("--end").stdout == "There is no migration.\n"
    done = migrate("--rollback", code=1)
    assert done.stderr == "Error: there is no migration\n"


def test_without_anybody_to_ask_it_says_what_to_do(service: WholeService, tiny: str) -> None:
    out = migrate("--model", tiny).stdout
    assert "Nothing was switched; say --yes, or run this with --switch.\n" in out
    assert model_of(service) == OLD
    assert json.loads(migrate("--switch", "--json").stdout)["migration"]["state"] == "switched"


def test_with_yes_it_switches_by_itself_and_tells_of_it_as_json(
    service: WholeService, tiny: str
) -> None:
    document = json.loads(migrate("--model", tiny, "--yes", "--json").stdout)
    assert document["migration"]["state"] == "switched"
    assert document["migration"]["indices"]["transcript"]["queries"] == 3
    assert model_of(service) == tiny


def test_the_switch_can_be_left_for_later(service: WholeService, tiny: str) -> None:
    out = migrate("--model", tiny, "--type", "frame", "--type", "clip", "--no-switch").stdout
    assert "transcript" not in out
    assert "searches use the old one" in out
    assert migrate("--status").stdout == out
    assert model_of(service) == OLD


def test_one_that_fails_says_why(service: WholeService, tiny: str) -> None:
    done = migrate("--model", "/no/such/model", code=1)
    assert "found in none of three places" in done.stderr
    assert migrate("--status").stdout == "There is no migration.\n"
    encoder = service.encoder.replica

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    encoder.encode_anew = broken
    out = migrate("--model", tiny, code=1).stdout
    assert "It can't go on, and searches use the old model:\nZeroDivisionError: a defect\n" in out
    del encoder.encode_anew
    migrate("--model", tiny, "--yes")
    assert model_of(service) == tiny


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say one of --model"),
        (("--model", "m", "--rollback"), "say one of --model"),
        (("--status", "--yes"), "belong to --model"),
        (("--model", "m", "--yes", "--no-switch"), "contradict"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str) -> None:
    assert message in " ".join(migrate(*arguments, code=2).stderr.replace("│", " ").split())
