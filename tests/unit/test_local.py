"""What `make run` refuses before it starts anything."""

import socket

import pytest
import yaml
from typer.testing import CliRunner

from deployments import local
from deployments.client.cli import app
from deployments.serve_process import StartError, start

KEY = "a-full-key-of-today"


def write_config(folder, **http_options):
    file = folder / "serve_config.yaml"
    applications = [{"name": "index", "args": {}}]
    file.write_text(yaml.safe_dump({"http_options": http_options, "applications": applications}))
    return file


@pytest.mark.parametrize("http_options", [{"host": "0.0.0.0"}, {"host": "10.0.0.1"}, {}])
def test_an_open_address_without_a_key_is_refused_before_anything_starts(tmp_path, http_options):
    config, log = write_config(tmp_path, **http_options), tmp_path / "log"
    with pytest.raises(StartError, match="without an API key: set EMBEDDINGS_API_KEY"):
        start(config, log)
    assert not log.exists()


def test_a_port_that_somebody_has_is_refused_before_anything_starts(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = write_config(tmp_path, host="127.0.0.1", port=taken.getsockname()[1])
        assert local.run(config, tmp_path / "log", None) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "is in use: a service may be running already" in shown
    assert not (tmp_path / "log").exists()


def test_a_wrong_key_is_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDDINGS_API_KEY", "hunter2")
    with pytest.raises(StartError, match="key 1 has 7 characters") as raised:
        start(write_config(tmp_path, host="127.0.0.1"), tmp_path / "log")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "isn't YAML: "),
        ("", "is no configuration of Serve: take the repository's serve_config.yaml"),
        ("- a", "is no configuration of Serve"),
        ("http_options: {}", "has no list of `applications`"),
        ("applications:", "has no list of `applications`"),
        ("applications: [ingress]", "has no list of `applications`"),
        ("{applications: [{name: a}], http_options: 8004}", "must be a mapping, not 8004"),
        ("{applications: [{name: a, args: [1]}]}", "must be a mapping, not [1]"),
        ("{applications: [{name: a}], http_options: {port: many}}", "is no address"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--host", "127.0.0.1")], ids=str)
def test_what_is_no_configuration_is_refused_with_its_reason(tmp_path, content, message, options):
    config = tmp_path / "serve_config.yaml"
    config.write_text(content)
    arguments = ["serve", "--config", str(config), "--log", str(tmp_path / "log"), *options]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 1
    assert message in " ".join(done.output.split())
    assert not (tmp_path / "log").exists()


def test_a_configuration_that_is_not_there_is_told(tmp_path, capsys):
    assert local.run(tmp_path / "none.yaml", tmp_path / "log", None) == 1
    assert "none.yaml can't be read" in " ".join(capsys.readouterr().out.split())
