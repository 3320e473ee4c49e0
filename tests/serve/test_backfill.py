"""Backfills to a running service: as a Ray job that is killed, and by the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.texts import sentences
from tests.serve.jobs import BackfillJob, exported, summary, wait_until_stored
from tests.serve.prometheus import wait_for_metrics

ROWS = 2500
SEGMENTS_PER_ITEM = 40


@pytest.fixture
def cleared(service):
    """The shared service, which others find without what these tests have stored."""
    yield service
    for number in range(-(-ROWS // SEGMENTS_PER_ITEM)):
        service.delete(f"/media/backfill {number}")
    service.delete("/media/talk")


def test_a_job_that_is_killed_and_submitted_again_stores_every_row_once(cleared, tmp_path):
    service = cleared
    rows = [
        {"video": f"backfill {number // SEGMENTS_PER_ITEM}", "text": text, "number": number}
        for number, text in enumerate(sentences(ROWS, "backfill"))
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [str(source), "--map", "media_item_id=video", "--json"]
    arguments += ["--progress", str(tmp_path / "progress.json")]
    before = service.get("/stats").json()["transcript_vectors"]

    job = BackfillJob(service, *arguments)
    wait_until_stored(service, before + ROWS // 3)
    job.kill()
    code, log = job.wait()
    assert code == 1, log
    assert service.get("/stats").json()["transcript_vectors"] < before + ROWS

    code, log = BackfillJob(service, *arguments).wait()
    assert code == 0, log
    done = summary(log)
    assert (done["rows"], done["stored"] + done["done_before"]) == (ROWS, ROWS)
    assert done["exit_code"] == 0
    stored = [
        (each["media_item_id"], each["segment_id"], each["text"], each["metadata"])
        for each in exported(service)
        if str(each["media_item_id"]).startswith("backfill ")
    ]
    assert sorted(stored, key=lambda each: each[3]["number"]) == [
        (row["video"], f"rows.jsonl:{number}", row["text"], {"number": row["number"]})
        for number, row in enumerate(rows, 1)
    ]
    metrics = wait_for_metrics(
        service, lambda found: "embeddings_backfill_stored_rows_total" in found.names
    )
    assert metrics.value("embeddings_backfill_stored_rows_total") > 0


def test_the_command_stores_over_http_and_quarantines(cleared, tmp_path):
    service = cleared
    source, quarantine = tmp_path / "talk.vtt", tmp_path / "bad.jsonl"
    source.write_text(
        "WEBVTT\n\n00:01.000 --> 00:03.000\nA covered call limits the upside\n\n"
        "00:04.000 --> 00:02.000\ntimes that run backwards\n"
    )
    command = [str(Path(sys.executable).with_name("embeddings-service")), "backfill", str(source)]
    command += ["--url", service.url, "--quarantine", str(quarantine), "--type", "clip", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    counted = json.loads(done.stdout)
    assert (counted["rows"], counted["stored"], counted["quarantined"]) == (2, 1, 1)
    (bad,) = map(json.loads, quarantine.read_text().splitlines())
    assert (bad["source"], bad["row"]) == (str(source), 6)
    assert bad["reason"] == "end_time (2.0) is before start_time (4.0)"
    assert f"Quarantined {source}:6: {bad['reason']}" in done.stderr
    found = service.search("selling calls against shares", kind="clip", top_k=1)
    assert found[0]["metadata"] == {
        "media_item_id": "talk",
        "segment_id": "talk.vtt:3",
        "start_time": 1.0,
        "end_time": 3.0,
        "text": "A covered call limits the upside",
    }
