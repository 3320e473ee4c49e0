"""What `make run` refuses before it starts anything."""

import socket

import pytest
import yaml

from deployments import local
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
