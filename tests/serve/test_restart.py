"""What a restart keeps: everything, with the same scores."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from deployments.client import Client
from deployments.core.encoding.model_identity import read_identity
from deployments.core.encoding.model_source import find_model
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, Segment, Upsert
from deployments.samples import load_samples
from deployments.serve_process import StartError
from tests.serve.prometheus import wait_for_metrics
from tests.serve.service import ROOT, Service

QUERIES = ["when is a stock overbought?", "moving average crossover", "how much to risk", "VWAP"]
KINDS = ("transcript", "frame", "clip")


def everything(service):
    return {
        (query, kind): service.search(query, kind, top_k=500) for query in QUERIES for kind in KINDS
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("restart")


def test_ctrl_c_and_a_kill_keep_every_vector_and_score(folder):
    with Service(folder) as first:
        with Client(first.url) as client:
            load_samples(client, ROOT / "data/samples")
        before = everything(first)
    top = before["when is a stock overbought?", "transcript"][:3]
    assert {result["metadata"]["media_item_id"] for result in top} == {101}
    # In the other transport: both serve the same.
    plain = {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0"}
    second = Service(folder, environment=plain).start()
    try:
        assert everything(second) == before
        second.embed("last words", [{"id": 1, "text": "the answer came before the power went"}])
        kill_everything(second)
    finally:
        second.stop()
    flip(second.index_dir / "frame_index.faiss", 300)
    with Service(folder) as third:
        metrics = wait_for_metrics(
            third, lambda found: "embeddings_recovery_seconds" in found.names
        )
        rebuilt = "embeddings_checkpoints_rebuilt_total"
        assert metrics.value(rebuilt, embedding_type="frame", flaw="checksum") == 1
        assert metrics.value(rebuilt, embedding_type="clip") is None
        assert metrics.value("embeddings_store_damaged") == 0
        assert metrics.value("embeddings_recovery_seconds") > 0
        found = third.search("the answer came before the power went", top_k=1)
        assert found[0]["metadata"]["media_item_id"] == "last words"
        assert third.delete("/media/last%20words").json()["embeddings_deleted"] == 1
        assert everything(third) == before


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def kill_everything(service):
    family = psutil.Process(service.pid).children(recursive=True)
    for process in [psutil.Process(service.pid), *family]:
        with contextlib.suppress(psutil.NoSuchProcess):  # some end when their parent does
            process.kill()
    psutil.wait_procs(family, timeout=10)


def test_a_folder_of_another_model_is_refused_and_left_as_it_is(folder, tmp_path):
    other = Service(tmp_path, {"embedding_model": make_another_model(tmp_path / "model")})
    model = read_identity("all-MiniLM-L6-v2", find_model("all-MiniLM-L6-v2"))
    vector = np.eye(1, model.dimension, dtype=np.float32)
    upsert = Upsert(EmbeddingType.CLIP, 1, (Segment(1, "kept"),), False, vector, (0,))
    with SegmentIndex.open(other.index_dir, model) as index:
        index.apply([upsert])
    files = {path.name: path.read_bytes() for path in other.index_dir.glob("*.faiss")}
    assert files
    reason = r"Index: StoreMismatch: .*set EMBEDDING_MODEL=all-MiniLM-L6-v2"
    with pytest.raises(StartError, match=reason):
        other.start()
    assert {path.name: path.read_bytes() for path in other.index_dir.glob("*.faiss")} == files
    with SegmentIndex.open(other.index_dir, model) as index:
        assert index.apply([upsert])[0].changed == 0


def make_another_model(folder: Path) -> str:
    """The default model with other weights: the same dimension, not the same vectors."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(find_model("all-MiniLM-L6-v2")), device="cpu")
    next(model.parameters()).data.mul_(1.01)
    model.save(str(folder))
    return str(folder)


def test_an_invalid_setting_stops_the_start(tmp_path):
    service = Service(tmp_path, {"embedding_device": "gpu", "embeddings_wrokers": 2})
    with pytest.raises(StartError) as raised:
        service.start()
    for part in ("embedding_device='gpu'", "'cuda'", "embeddings_wrokers", "embeddings_workers?"):
        assert part in str(raised.value)


def test_make_run_loads_samples_shows_examples_and_stops_on_ctrl_c(tmp_path):
    service = Service(tmp_path)
    command = [sys.executable, "-m", "deployments.local", "--config", str(service.config)]
    command += ["--log", str(service.log)]
    environment = {**service.environment, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        printed = ""
        for line in process.stdout:
            printed += line
            if "make clear" in line:
                break
        assert service.get("/stats").json()["total_vectors"] == 569
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        printed += process.stdout.read()
        assert process.wait(30) == 0
    assert "Loaded 569 sample segments" in printed
    assert "relative strength index overbought" in printed
    assert f"Search page              {service.url}/\n" in printed
    assert f"{service.url}/docs" in printed
    deadline = time.monotonic() + 10
    while any(process.is_running() for process in family) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [process.name() for process in family if process.is_running()] == []
