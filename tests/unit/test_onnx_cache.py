import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deployments.core.encoding import onnx_cache
from deployments.core.encoding.model_source import file_sha256
from deployments.core.encoding.onnx_cache import OnnxModel, cached_export
from deployments.core.errors import ModelCorrupt, ModelError
from deployments.core.segments import ModelIdentity

IDENTITY = ModelIdentity("model", "ab" * 32, 384)


def write_export(folder, content=b"graph"):
    """What a successful export leaves."""
    (folder / "model.onnx").write_bytes(content)
    (folder / "tokenizer.json").write_text("{}")
    OnnxModel(
        fingerprint=IDENTITY.fingerprint,
        max_tokens=256,
        query_prompt="query: ",
        document_prompt="",
        pad_id=0,
        pad_left=False,
        truncate_left=False,
        exporter="torchscript",
        max_difference=1e-7,
        probe_text="probe",
        probe_vector=[0.6, 0.8],
        sha256={name: file_sha256(folder / name) for name in ("model.onnx", "tokenizer.json")},
    ).write(folder)


@pytest.fixture
def exporter(monkeypatch):
    """Replaces the exporting process; keeps the names of the models that it exported."""
    exported = []

    def export(folder, identity, output):
        exported.append(identity.name)
        write_export(output)

    monkeypatch.setattr(onnx_cache, "_run_exporter", export)
    return exported


def test_a_model_is_exported_once(exporter, tmp_path):
    first = cached_export(Path("/model"), IDENTITY, tmp_path)
    assert cached_export(Path("/model"), IDENTITY, tmp_path) == first
    assert exporter == ["model"]
    assert OnnxModel.read(first).probe_vector == [0.6, 0.8]
    other = ModelIdentity("other", "cd" * 32, 384)
    assert cached_export(Path("/other"), other, tmp_path) != first
    assert exporter == ["model", "other"]


def test_a_new_format_is_exported_anew(exporter, tmp_path, monkeypatch):
    first = cached_export(Path("/model"), IDENTITY, tmp_path)
    monkeypatch.setattr(onnx_cache, "FORMAT_VERSION", 2)
    assert cached_export(Path("/model"), IDENTITY, tmp_path) != first
    assert exporter == ["model", "model"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda export: (export / "model.onnx").write_bytes(b"torn"),
        lambda export: (export / "tokenizer.json").unlink(),
        lambda export: (export / "encoder.json").write_text("{"),
        lambda export: (export / "encoder.json").write_text("{}"),
    ],
)
def test_a_damaged_export_is_made_again_with_a_warning(damage, exporter, tmp_path, caplog):
    export = cached_export(Path("/model"), IDENTITY, tmp_path)
    damage(export)
    with pytest.raises(ModelCorrupt):
        OnnxModel.read(export)
    assert cached_export(Path("/model"), IDENTITY, tmp_path) == export
    assert exporter == ["model", "model"]
    assert "must be exported again" in caplog.text
    OnnxModel.read(export)


def test_a_finished_export_needs_no_lock(exporter, tmp_path, monkeypatch):
    export = cached_export(Path("/model"), IDENTITY, tmp_path)

    def read_only(path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(onnx_cache, "_locked", read_only)
    assert cached_export(Path("/model"), IDENTITY, tmp_path) == export
    (export / "model.onnx").unlink()
    with pytest.raises(ModelError, match="Read-only file system"):
        cached_export(Path("/model"), IDENTITY, tmp_path)


def test_an_unusable_cache_folder_is_a_model_error(exporter, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="exports can't be kept in"):
        cached_export(Path("/model"), IDENTITY, tmp_path / "file")


def test_a_failed_export_leaves_nothing_and_is_tried_again(exporter, tmp_path, monkeypatch):
    export_well = onnx_cache._run_exporter

    def fail_half_way(folder, identity, output):
        (output / "model.onnx").write_bytes(b"half")
        raise ModelError("the disk is full")

    monkeypatch.setattr(onnx_cache, "_run_exporter", fail_half_way)
    with pytest.raises(ModelError, match="the disk is full"):
        cached_export(Path("/model"), IDENTITY, tmp_path)
    assert [path.suffix for path in (tmp_path / "onnx").iterdir()] == [".lock"]
    monkeypatch.setattr(onnx_cache, "_run_exporter", export_well)
    OnnxModel.read(cached_export(Path("/model"), IDENTITY, tmp_path))


def test_what_a_killed_export_left_is_replaced(exporter, tmp_path):
    left = tmp_path / "onnx" / f"{IDENTITY.fingerprint}-v{onnx_cache.FORMAT_VERSION}.partial"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    OnnxModel.read(cached_export(Path("/model"), IDENTITY, tmp_path))
    assert not left.exists()


def test_of_two_threads_one_exports_and_the_other_waits(tmp_path, monkeypatch):
    exported, begun, may_end = [], threading.Event(), threading.Event()

    def export(folder, identity, output):
        exported.append(identity.name)
        begun.set()
        assert may_end.wait(30)
        write_export(output)

    monkeypatch.setattr(onnx_cache, "_run_exporter", export)
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.append(cached_export(Path("/model"), IDENTITY, tmp_path))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    may_end.set()
    for thread in threads:
        thread.join(30)
    assert exported == ["model"]
    assert len(found) == 3
    assert len(set(found)) == 1


def test_of_two_processes_one_exports(tmp_path):
    program = """
import sys
from pathlib import Path
from deployments.core.encoding import onnx_cache
from tests.unit.test_onnx_cache import IDENTITY, write_export
def export(folder, identity, output):
    with open(sys.argv[1] + "/log", "a") as log: log.write("exported\\n")
    write_export(output)
onnx_cache._run_exporter = export
sys.stdin.read()
print(onnx_cache.cached_export(Path("/model"), IDENTITY, Path(sys.argv[1])))
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
        )
        for _ in range(2)
    ]  # fmt: skip
    # Both have started when their input ends.
    for process in processes:
        process.stdin.close()
        process.stdin = None
    answers = {process.communicate(timeout=60)[0] for process in processes}
    assert len(answers) == 1
    assert Path(answers.pop().strip()).is_dir()
    assert (tmp_path / "log").read_text() == "exported\n"


def test_the_exporting_process_says_why_it_failed(tmp_path, monkeypatch, caplog):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    caplog.set_level(logging.DEBUG, logger="deployments")
    with pytest.raises(ModelError, match=r"model can't be exported to ONNX: .*no torch here"):
        cached_export(tmp_path / "model", IDENTITY, tmp_path)
    assert "Traceback" in caplog.text


def test_an_endless_export_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_cache, "EXPORT_TIMEOUT_S", 0.01)
    with pytest.raises(ModelError, match=r"took more than 0\.01 s"):
        cached_export(tmp_path / "no-model", IDENTITY, tmp_path)


def test_an_unknown_field_is_a_damaged_export(tmp_path):
    write_export(tmp_path)
    content = json.loads((tmp_path / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps({**content, "more": 1}))
    with pytest.raises(ModelCorrupt, match="more"):
        OnnxModel.read(tmp_path)
