"""A short run of `python -m tests.crash`, and that it would notice what it is there to notice."""

import json
import subprocess
import sys

import pytest

from tests.crash.checks import Checks
from tests.crash.http_api import Answer
from tests.crash.ledger import NOTHING, Ledger, Write, canonical, fault_of
from tests.crash.report import Report
from tests.serve.service import ROOT


@pytest.mark.timeout(600)  # 75 s where nothing else runs
def test_kills_lose_nothing(tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.crash", "--seed", "5", "--short", "--kills", "10"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path / "run"), "--json", str(report)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:]
    found = json.loads(report.read_text())
    assert found["violations"] == []
    assert sum(found["kills"].values()) >= 10
    assert found["kills"]["whole cluster"] == 1
    assert found["counts"]["writes acknowledged"] > 30
    assert found["counts"]["searches for the anchor"] > 30
    assert found["counts"]["folders opened and verified"] == 2


def segment(number, text="a text", **more):
    return {"id": number, "text": text, "rev": f"r{number}", **more}


def entry(number, media_item_id=7, text="a text"):
    times = {"start_time": None, "end_time": None}
    names = {"media_item_id": media_item_id, "segment_id": number, "rev": f"r{number}"}
    return ("transcript", str(number), canonical({"text": text, **times, **names}))


def upsert(*segments, replace=False):
    return Write(7, "transcript", segments, replace)


def test_an_unanswered_write_may_be_there_as_a_whole_or_not_at_all():
    ledger = Ledger()
    first, second = upsert(segment(1)), upsert(segment(2), segment(3), replace=True)
    ledger.begin(first)
    assert set(ledger.possible("7")) == {NOTHING, frozenset([entry(1)])}
    ledger.acknowledge(first, (NOTHING,))
    ledger.begin(second)
    ledger.leave_unknown(second, "killed")
    allowed = ledger.possible("7")
    assert set(allowed) == {frozenset([entry(1)]), frozenset([entry(2), entry(3)])}
    assert fault_of(frozenset([entry(2)]), allowed) == "half-applied"
    assert fault_of(frozenset([entry(1), entry(2), entry(3)]), allowed) == "half-applied"
    assert fault_of(frozenset([entry(9)]), allowed) == "lost"


def result(number, distance, position=0, **more):
    metadata = json.loads(entry(number, **more)[2])
    similarity = min(1.0, max(0.0, 1 - distance))
    return {
        "index": position,
        "similarity": similarity,
        "distance": distance,
        "metadata": metadata,
    }


def answer(*results):
    return Answer(200, {"results": list(results)}, None, 0.0, 0.01)


@pytest.mark.parametrize(
    ("results", "kind"),
    [
        ([], "lost"),
        ([result(1, 0.1), result(1, 0.2, 1)], "duplicate"),
        ([result(1, 0.1, text="an older text")], "lost"),
        ([result(1, 0.1), result(2, 0.2, 1)], "lost"),
        ([result(1, 0.1), result(1, 0.2, 1, media_item_id=8)], "lost"),
        ([result(1, 0.2, 1)], "wrong answer"),
        ([result(1, 0.1)], None),
    ],
)
def test_a_reading_that_differs_from_what_was_acknowledged_is_noticed(results, kind):
    ledger, report = Ledger(), Report(seed=0, limit_s=1)
    write = upsert(segment(1))
    ledger.begin(write)
    ledger.acknowledge(write, (NOTHING,))
    with ledger.watching() as seen:
        Checks(ledger, report).reading("transcript", answer(*results), seen)
    assert {each["kind"] for each in report.violations} == ({kind} if kind else set())


@pytest.mark.parametrize(
    ("distance", "wrong"), [(0.0, False), (0.00005, False), (0.0003, True), (None, True)]
)
def test_a_stored_text_has_to_be_found_with_the_score_of_itself(distance, wrong):
    ledger, report = Ledger(), Report(seed=0, limit_s=1)
    results = [] if distance is None else [result(1, distance)]
    Checks(ledger, report).own_text(entry(1)[2], answer(*results), 3)
    assert bool(report.violations) == wrong


@pytest.mark.parametrize(
    ("status", "retry_after", "seconds", "error", "kind"),
    [
        (200, None, 0.1, "", None),
        (503, "2", 0.1, "", None),
        (503, None, 0.1, "", "no Retry-After"),
        (500, "2", 0.1, "", "status"),
        (404, None, 0.1, "", "status"),
        (200, None, 1.5, "", "hang"),
        (None, None, 0.1, "ConnectionResetError: gone", "no answer"),
    ],
)
def test_a_status_or_a_hang_that_is_not_allowed_is_noticed(
    status, retry_after, seconds, error, kind
):
    report = Report(seed=0, limit_s=1)
    report.answered("search", Answer(status, None, retry_after, 0.0, seconds, error), False)
    assert [each["kind"] for each in report.violations] == ([kind] if kind else [])
    down = Report(seed=0, limit_s=1)
    down.answered("search", Answer(status, None, retry_after, 0.0, seconds, error), True)
    assert down.violations == []
