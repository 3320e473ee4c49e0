"""The command line's usage, errors and completion, without a service or with one that refuses."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console
from typer.testing import CliRunner

from deployments.client.cli import app
from deployments.client.display import clock, hits_table, span
from deployments.client.load import Load
from deployments.client.results import Hit
from deployments.client.search_command import MOST_CONTEXT
from deployments.client.serve_command import PACKAGED_CONFIG, _configured
from deployments.core.api.search_requests import SearchRequest
from deployments.core.errors import Forbidden, Overloaded, ServiceError, Unauthorized
from deployments.rest.problems import error_response

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EMBEDDINGS_SERVICE_URL", "EMBEDDINGS_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, **options: Any) -> Any:
    done = CliRunner().invoke(app, arguments, prog_name="embeddings-service", **options)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@contextmanager
def server(
    status: int, headers: dict[str, str], body: bytes, then: tuple[int, bytes] | None = None
) -> Iterator[tuple[str, list[Any]]]:
    """A server on this machine that answers the same, or `then` another; what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.command, self.path, self.headers, json.loads(sent or b"null")))
            later = then is not None and len(asked) > 1
            self.send_response(then[0] if later else status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(then[1] if later else body)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}", asked
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


@contextmanager
def refusing(error: ServiceError) -> Iterator[tuple[str, list[Any]]]:
    response = error_response(error)
    headers = {name: value for name, value in response.headers.items() if name != "retry-after"}
    with server(response.status_code, headers, bytes(response.body)) as found:
        yield found


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "x"),
        ("status",),
        ("stats",),
        ("delete", "1", "--yes"),
        ("embed", "x"),
        ("embed", "x", "--media-item", "1"),
        ("bench", "--seconds", "1"),
    ],
    ids=" ".join,
)
def test_without_a_service_it_says_how_to_start_one(arguments, monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    done = run(*arguments, "--url", "http://127.0.0.1:9")
    assert (done.exit_code, done.stdout) == (4, "")
    assert "http://127.0.0.1:9 doesn't answer: " in done.stderr
    assert "embeddings-service serve" in done.stderr
    assert "EMBEDDINGS_SERVICE_URL" in done.stderr


def test_without_a_key_it_says_which_variable_to_set() -> None:
    with refusing(Unauthorized("send a key")) as (url, asked):
        done = run("search", "x", "--url", url)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == (
            "Error: send a key\n"
            "Set EMBEDDINGS_API_KEY to a key of the service, or give it as --api-key.\n"
        )
        run("search", "x", env={"EMBEDDINGS_SERVICE_URL": url, "EMBEDDINGS_API_KEY": "a-key"})
    assert [headers["Authorization"] for _, _, headers, _ in asked] == [None, "Bearer a-key"]


def test_a_read_only_key_is_told_from_one_that_writes() -> None:
    with refusing(Forbidden("this key may read only")) as (url, _):
        done = run("embed", "x", "--media-item", "1", "--url", url)
    assert done.exit_code == 1
    assert "Error: this key may read only\nThis needs a key of the service's" in done.stderr


def test_an_error_of_the_service_is_one_line(monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with refusing(Overloaded("512 searches wait")) as (url, asked):
        done = run("stats", "--url", url)
    assert (done.exit_code, done.stderr) == (1, "Error: 512 searches wait\n")
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        (("search", "caf\udce9"), "", r"query has '\udce9' at position 3 (from 0)"),
        (("search", "x", "--filter", '{"a": NaN}'), "", "filter.a is nan"),
        (("delete", "caf\udce9", "--yes"), "", r"media_item_id has '\udce9'"),
        (
            ("embed", "--media-item", "1"),
            '[{"id": 1, "text": "x", "start_time": NaN}]',
            "segments.0.start_time is nan",
        ),
        (("embed",), r'["\ud800"]', r"input.0 has '\ud800'"),
    ],
)
def test_what_no_request_can_hold_is_named(arguments, content, message) -> None:
    models = json.dumps({"data": [{"id": "m"}]}).encode()
    with server(200, {}, models) as (url, _):
        done = run(*arguments, "--url", url, input=content)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {message}")


def test_another_server_is_told_apart() -> None:
    with server(200, {"Content-Type": "text/html"}, b"<html>") as (url, _):
        done = run("stats", "--url", url)
    assert done.exit_code == 1
    assert "is it the embeddings service?" in done.stderr


def test_an_unhealthy_service_has_exit_code_1_and_says_why() -> None:
    body = json.dumps({"status": "unhealthy", "reason": "Not ready: the index starts"}).encode()
    with server(503, {"Content-Type": "application/json"}, body) as (url, _):
        done, as_json = run("status", "--url", url), run("status", "--url", url, "--json")
    assert done.exit_code == as_json.exit_code == 1
    assert done.stdout.splitlines() == ["unhealthy", "Not ready: the index starts"]
    assert json.loads(as_json.stdout)["reason"] == "Not ready: the index starts"


def test_options_of_a_search_become_a_request() -> None:
    body = json.dumps({"results": []}).encode()
    with server(200, {}, body) as (url, asked):
        arguments = ["search", "golden", "cross", "--url", url, "--type", "frame", "--top-k", "3"]
        arguments += ["--min-similarity", "0.4", "--filter", '{"kind": "chart"}', "--group"]
        done = run(*arguments, "--media-item", "101", "--media-item", "b", "--mode", "hybrid")
    assert asked[0][3] == {
        "query": "golden cross",
        "embedding_type": "frame",
        "highlight": True,
        "mode": "hybrid",
        "top_k": 3,
        "min_similarity": 0.4,
        "filter": {"$and": [{"kind": "chart"}, {"media_item_id": {"$in": ["101", "b"]}}]},
        "group_by": "media_item_id",
        "group_size": 3,
    }
    expected = "Nothing was found. Try a lower --min-similarity or --type all.\n"
    assert (done.exit_code, done.stdout) == (0, expected)


def test_brackets_in_what_is_stored_are_shown_as_they_are() -> None:
    metadata = {"media_item_id": "[b]1[/b]", "segment_id": 1, "text": "a [/red] b"}
    metadata |= {"start_time": None, "end_time": None}
    result = {"similarity": 0.9, "distance": 0.1, "metadata": metadata}
    moment = {"media_item_id": "[b]1[/b]", "start_time": None, "end_time": None, "score": 1}
    moment |= {"evidence": {"clip": [result]}}
    with server(200, {}, json.dumps({"moments": [moment], "results": [result]}).encode()) as (
        url,
        _,
    ):
        for kind in ("all", "clip"):
            shown = run("search", "x", "--type", kind, "--url", url).stdout
            assert "[b]1[/b]" in shown
            assert "a [/red] b" in shown


def test_all_types_are_searched_for_moments() -> None:
    with server(200, {}, b'{"moments": []}') as (url, asked):
        assert run("search", "x", "--type", "all", "--url", url).exit_code == 0
    assert asked[0][1] == "/search/moments"
    assert asked[0][3] == {"query": "x", "top_k": 10, "min_similarity": 0.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search",), "Missing argument"),
        (("search", "x", "--top-k", "0"), "--top-k"),
        (("search", "x", "--context", "11"), "less than or equal to 10"),
        (("search", "x", "--filter", "{"), "--filter isn't JSON"),
        (("search", "x", "--filter", "[]"), "--filter isn't a JSON object"),
        (("search", "x", "--group", "--type", "all"), "--group and --type all"),
        (("search", "x", "--url", "localhost"), "expected one such as http://localhost:8004"),
        (("stats", "--api-key", "k\u2026"), "the API key has other characters"),
        (("delete", "1"), "say --yes to remove all segments of media item 1"),
        (("delete", "1", "--type", "clip"), "say --yes to remove all clip segments"),
        (("embed", "x", "--file", "y"), "give texts or --file, not both"),
        (("embed", "x", "--replace"), "--replace needs --media-item"),
    ],
)
def test_wrong_usage_has_exit_code_2(arguments, message) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "there is no text"),
        ("[]", "there is no text"),
        ('{"media_item_id": 7, "segments": []}', "there is no text"),
        ('[{"id": 1, "text": "cut off"', "line 1 isn't JSON"),
        ('[\n{"id": 1}', "line 1 isn't JSON"),
        ('{"id": 1, "text": "x"}\n{"id": 2', "line 2 isn't JSON"),
        ('[{"id": 1, "text": "x"}, 7]', "segment 1 (from 0) isn't a JSON object"),
        ('[{"id": 1, "text": "x"}]', "say --media-item ID to store them, or use `backfill`"),
    ],
)
def test_what_embed_cannot_read_is_told(content, message) -> None:
    done = run("embed", input=content)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


STORED = {
    "status": "success",
    "media_item_id": 7,
    "embedding_type": "frame",
    "embeddings_created": 2,
    "changed": 1,
    "removed": 0,
    "truncated": 1,
}


@pytest.mark.parametrize(
    ("arguments", "content", "item", "kind", "segments"),
    [
        (("--media-item", "7"), "one\n\n two\n", "7", "transcript", ["one", "two"]),
        (
            ("--media-item", "7"),
            "[Applause] one\n{two",
            "7",
            "transcript",
            ["[Applause] one", "{two"],
        ),
        (("--media-item", "7", "one", "two"), "", "7", "transcript", ["one", "two"]),
        (
            ("--media-item", "7", "--type", "clip"),
            '[{"id": 1, "text": "one"}, {"id": 2, "text": "two"}]',
            "7",
            "clip",
            ["one", "two"],
        ),
        (
            (),
            '{"media_item_id": 7, "embedding_type": "frame", "frames": [{"id": 1, "text": "x"}]}',
            7,
            "frame",
            ["x"],
        ),
        (("--media-item", "7"), '{"id": 1, "text": "x"}\n', "7", "transcript", ["x"]),
    ],
)
def test_embed_stores_what_has_a_media_item(arguments, content, item, kind, segments) -> None:
    with server(200, {}, json.dumps(STORED).encode()) as (url, asked):
        done = run("embed", *arguments, "--url", url, input=content)
    assert done.exit_code == 0, done.stderr
    (request,) = [body for _, _, _, body in asked]
    assert (request["media_item_id"], request["embedding_type"]) == (item, kind)
    assert [(each["id"], each["text"]) for each in request["segments"]] == list(
        enumerate(segments, 1)
    )
    assert done.stdout.splitlines() == [
        f"2 {kind} segments of media item {item} are stored, 1 of them new or changed.",
        "1 are longer than the model reads, and were cut for it.",
    ]


def test_replacing_tells_how_many_were_removed() -> None:
    with server(200, {}, json.dumps(STORED | {"removed": 5}).encode()) as (url, _):
        arguments = ("embed", "x", "--media-item", "7", "--replace", "--url", url)
        assert "\n5 others were removed.\n" in run(*arguments).stdout
        assert json.loads(run(*arguments, "--json").stdout)["removed"] == 5


def test_the_limit_of_context_is_the_service_s() -> None:
    SearchRequest(query="x", context=MOST_CONTEXT)
    with pytest.raises(ValidationError):
        SearchRequest(query="x", context=MOST_CONTEXT + 1)


def test_what_was_stored_before_an_error_is_told() -> None:
    problem = json.dumps({"status": 422, "code": "invalid_input", "detail": "it is wrong"}).encode()
    # The same name twice: the second one waits for the first.
    twice = '[{"id": 1, "text": "a"}, {"id": 1, "text": "b"}]'
    with server(200, {}, json.dumps(STORED).encode(), then=(422, problem)) as (url, _):
        done = run("embed", "--media-item", "1", "--url", url, input=twice)
    assert done.exit_code == 1
    assert done.stderr == (
        "Error: it is wrong\n2 segments were stored before; storing them again is safe.\n"
    )


def test_a_file_that_is_not_text_is_told(tmp_path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(b"\x89PNG")
    done = run("embed", "--file", str(file))
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: what should be read isn't UTF-8")


def test_a_file_that_is_not_there_is_told(tmp_path) -> None:
    done = run("embed", "--file", str(tmp_path / "none.txt"))
    assert done.exit_code == 1
    assert "No such file" in done.stderr


def test_the_words_of_the_query_are_marked_in_a_terminal() -> None:
    metadata = {"media_item_id": 1, "segment_id": 1, "text": "above [70]", "start_time": 0}
    result = {"similarity": 0.9, "distance": 0.1, "highlights": [[0, 5], [7, 9]]}
    hit = Hit.read(result | {"metadata": metadata | {"end_time": None}})
    output = StringIO()
    terminal = Console(file=output, force_terminal=True, color_system="standard", width=80)
    terminal.print(hits_table([hit]))
    assert "\x1b[1;33mabove\x1b[0m [\x1b[1;33m70\x1b[0m]" in output.getvalue()


def test_models_are_shown_where_indices_have_their_own(tmp_path) -> None:
    counts = {f"{kind}_vectors": 3 for kind in ("transcript", "frame", "clip", "total")}
    document = counts | {"model_name": "mini", "embedding_dimension": 8, "timestamp": "now"}

    def shown(frame: str) -> str:
        models = {"transcript": "mini", "frame": frame, "clip": "mini"}
        indices = {kind: {"type": "flat", "model_name": name} for kind, name in models.items()}
        with server(200, {}, json.dumps(document | {"indices": indices}).encode()) as (url, _):
            return run("stats", "--url", url).stdout

    assert "mini\n" in shown("pictures")
    assert "pictures\n" in shown("pictures")
    assert shown("mini").count("mini") == 1


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "--:--"), (0, "00:00"), (59.9, "00:59"), (61, "01:01"), (3600, "1:00:00")],
)
def test_times_are_shown_as_on_a_player(seconds, shown) -> None:
    assert clock(seconds) == shown


def test_a_stretch_is_shown_as_far_as_it_is_known() -> None:
    assert span(None, None) == "-"
    assert span(3, None) == span(3, 3) == "00:03"
    assert span(3, 65) == "00:03–01:05"
    assert span(None, 65) == "--:--–01:05"


@given(st.lists(st.floats(0, 10), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99, 1]))
def test_a_percentile_is_the_least_time_that_so_many_took_at_most(times, share) -> None:
    found = Load(1, 1.0, times).percentile_ms(share) / 1000
    assert found in [pytest.approx(each) for each in times]
    exact = min(t for t in times if sum(each <= t for each in times) >= share * len(times) - 1e-9)
    assert found == pytest.approx(exact)


def test_the_packaged_configuration_is_that_of_the_repository() -> None:
    assert PACKAGED_CONFIG.read_text() == (ROOT / "serve_config.yaml").read_text()


def test_another_address_is_a_configuration_of_its_own() -> None:
    with _configured(PACKAGED_CONFIG, None, 9000) as file:
        assert "port: 9000" in file.read_text()
        assert "host: 127.0.0.1" in file.read_text()
    assert not file.exists()


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = "from deployments.client.cli import app; app(prog_name='embeddings-service')"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_the_shell_completes_commands_and_options() -> None:
    def completed(words: str, position: int) -> list[str]:
        done = command(
            _EMBEDDINGS_SERVICE_COMPLETE="complete_bash",
            COMP_WORDS=words,
            COMP_CWORD=str(position),
        )
        return done.stdout.split()

    assert completed("embeddings-service se", 1) == ["serve", "search"]
    assert "hybrid" in completed("embeddings-service search --mode h", 3)
    # What --install-completion writes; it finds out the shell by its parent process.
    script = command(_EMBEDDINGS_SERVICE_COMPLETE="source_bash").stdout
    assert "_EMBEDDINGS_SERVICE_COMPLETE=complete_bash" in script


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from deployments.client.cli import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "heavy = {'ray', 'torch', 'numpy', 'pydantic', 'httpx', 'rich', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    for name in ("serve", "status", "search", "embed", "backfill", "delete", "stats", "bench"):
        assert f"\n  {name} " in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_searching_loads_neither_the_service_nor_numpy() -> None:
    with server(200, {}, b'{"results": []}') as (url, _):
        program = (
            "import sys\n"
            "from deployments.client.cli import app\n"
            f"app(['search', 'x', '--url', {url!r}], standalone_mode=False)\n"
            "print(sorted({'ray', 'torch', 'numpy', 'fastapi'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_question_is_not_part_of_the_result() -> None:
    deleted = json.dumps({"embeddings_deleted": 3, "media_item_id": 1}).encode()
    controller, terminal = os.openpty()
    try:
        with server(200, {}, deleted) as (url, _):
            os.write(controller, b"y\n")
            program = "from deployments.client.cli import app; app()"
            done = subprocess.run(
                [sys.executable, "-c", program, "delete", "1", "--json", "--url", url],
                stdin=terminal,
                capture_output=True,
                text=True,
            )
    finally:
        os.close(controller)
        os.close(terminal)
    assert json.loads(done.stdout) == json.loads(deleted)
    assert done.stderr.startswith("Remove all segments of media item 1 from http")
