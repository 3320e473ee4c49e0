"""The command line against the real service, and the command that starts one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.client.cli import app
from tests.serve.service import free_ports

SAMPLES = Path(__file__).parents[2] / "data" / "samples"
COMMAND = Path(sys.executable).with_name("embeddings-service")


@pytest.fixture(scope="module")
def run(service):
    """Runs a command at the service, over the samples of one lesson."""
    for kind in ("transcript", "frame", "clip"):
        lines = (SAMPLES / f"{kind}s.jsonl").read_text().splitlines()
        segments = [json.loads(line) for line in lines]
        lesson = [each for each in segments if each.pop("media_item_id") == 101]
        service.embed("cli-101", lesson, kind)

    def run(*arguments, code=0, **options):
        environment = {"EMBEDDINGS_SERVICE_URL": service.url, "EMBEDDINGS_API_KEY": ""}
        done = CliRunner().invoke(app, arguments, env=environment, **options)
        assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
        return done.stdout

    return run


QUERY = ("search", "when is a stock overbought?", "--media-item", "cli-101")


def test_a_search_is_a_table(run):
    lines = run(*QUERY, "--top-k", "3").splitlines()
    assert lines[0].split() == ["similarity", "media", "item", "time", "text"]
    best = lines[2].split()
    assert float(best[0]) > 0.7
    assert best[1:4] == ["cli-101", "00:37–00:46", "So"]
    assert "when is a stock overbought?" in lines[2]


def test_a_search_as_json_is_the_service_s_answer(run):
    answer = json.loads(run(*QUERY, "--top-k", "2", "--mode", "hybrid", "--json"))
    assert [result["index"] for result in answer["results"]] == [0, 1]
    best = answer["results"][0]
    assert best["metadata"]["segment_id"] == 5
    assert best["score"] > answer["results"][1]["score"]
    assert best["highlights"]


def test_all_types_give_moments_with_their_evidence(run):
    shown = run(*QUERY, "--type", "all", "--top-k", "1")
    (best,) = json.loads(run(*QUERY, "--type", "all", "--top-k", "1", "--json"))["moments"]
    found = [(kind, hit) for kind, hits in best["evidence"].items() for hit in hits]
    assert len(found) > 0
    for kind, hit in found:
        words = hit["metadata"]["text"].split()[:3]
        assert f"{kind}  {hit['similarity']:.2f}  {' '.join(words)}" in shown


def test_neighbours_and_groups_are_shown(run):
    one = run(*QUERY, "--top-k", "1")
    assert one.count("cli-101") == 1
    around = run(*QUERY, "--top-k", "1", "--context", "1")
    assert "00:46" in around.replace("00:37–00:46", "")
    grouped = run(*QUERY, "--group")
    assert grouped.count("cli-101") == 1
    assert len([line for line in grouped.splitlines() if " 0." in line]) == 3


def test_texts_are_embedded_without_being_stored(run, service):
    before = service.get("/stats").json()["total_vectors"]
    answer = json.loads(run("embed", "--json", input="one text\nanother\n"))
    assert [each["text"] for each in answer["embeddings"]] == ["one text", "another"]
    assert {len(each["embedding"]) for each in answer["embeddings"]} == {384}
    assert "… (384 numbers)  one text" in run("embed", "one text")
    assert service.get("/stats").json()["total_vectors"] == before


def test_segments_are_stored_and_deleted(run, tmp_path):
    file = tmp_path / "segments.json"
    file.write_text(json.dumps([{"id": "a", "text": "a hammer at support", "ticker": "SPY"}]))
    stored = run("embed", "--media-item", "cli-2", "--type", "clip", "--file", str(file))
    expected = "1 clip segments of media item cli-2 are stored, 1 of them new or changed.\n"
    assert stored == expected
    found = json.loads(
        run("search", "hammer", "--media-item", "cli-2", "--type", "clip", "--json")
    )["results"]
    assert [result["metadata"]["ticker"] for result in found] == ["SPY"]
    replaced = json.loads(
        run("embed", "other", "--media-item", "cli-2", "--type", "clip", "--replace", "--json")
    )
    assert (replaced["embeddings_created"], replaced["changed"]) == (1, 1)
    assert run("delete", "cli-2", "--yes") == "1 segments of media item cli-2 were removed.\n"
    assert json.loads(run("delete", "cli-2", "--yes", "--json"))["embeddings_deleted"] == 0


def test_the_service_is_described(run):
    status = run("status").splitlines()
    assert status[0] == "healthy"
    assert "model all-MiniLM-L6-v2, 384 dimensions; 1 encoder" in status[1]
    assert json.loads(run("status", "--json"))["status"] == "healthy"
    counts = json.loads(run("stats", "--json"))
    row = next(line for line in run("stats").splitlines() if line.strip().startswith("frame"))
    assert row.split()[:2] == ["frame", f"{counts['frame_vectors']:,}"]


def test_bench_counts_every_answer(run, tmp_path):
    figures = json.loads(run("bench", "--clients", "3", "--seconds", "1", "--json"))
    assert figures["searches"] > 0
    assert figures["errors"] == {}
    assert figures["p50_ms"] <= figures["p95_ms"] <= figures["p99_ms"] <= figures["max_ms"]
    queries = tmp_path / "queries.txt"
    queries.write_text("golden cross\n")
    shown = run("bench", "--clients", "1", "--seconds", "0.5", "--queries", str(queries))
    assert "per second" in shown


def test_serve_starts_a_service_and_ctrl_c_ends_it(tmp_path):
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    arguments = ["serve", "--port", str(port), "--index-dir", "index", "--samples", str(SAMPLES)]
    output = tmp_path / "out"
    with output.open("w") as out:
        child = subprocess.Popen(
            [str(COMMAND), *arguments], cwd=tmp_path, env=environment, stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + 200
        while "The service is up" not in output.read_text():
            assert child.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.5)
        asked = ["search", "when is a stock overbought?", "--url", url, "--json", "--top-k", "1"]
        done = subprocess.run([str(COMMAND), *asked], capture_output=True, text=True)
        (best,) = json.loads(done.stdout)["results"]
        assert (best["metadata"]["media_item_id"], best["metadata"]["segment_id"]) == (101, 5)
        assert (tmp_path / "index" / "store.sqlite3").exists()
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
    gone = subprocess.run([str(COMMAND), "status", "--url", url], capture_output=True, text=True)
    assert gone.returncode == 4
