"""What a person sees of a backfill in a terminal and in a log."""

from io import StringIO

import pytest
from rich.console import Console

from deployments.backfill import report as report_module
from deployments.backfill.report import Report
from deployments.backfill.tally import Tally


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [100.0]
    monkeypatch.setattr(report_module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_few_seconds(clock: list[float]) -> None:
    output, tally = StringIO(), Tally()
    report = Report(Console(file=output, width=40), tally)
    with report.running():
        for tenths in range(121):
            clock[0] = 100.0 + tenths / 10
            tally.rows, tally.stored, report.fraction = tenths * 20, tenths * 10, tenths / 500
            report.calls = 4
            report.tick()
        tally.quarantined, report.trouble = 3, "too much waits"
        clock[0] = 115.0
        report.tick()
    assert output.getvalue().splitlines() == [
        "  5%  500 rows done, 100 a second, 4 calls in flight, 1 min 35 s left",
        " 10%  1,000 rows done, 100 a second, 4 calls in flight, 1 min 30 s left",
        " 12%  1,200 rows done, 80 a second, 3 failures, 4 calls in flight, waiting: too much waits"
        ", 1 min 50 s left",
    ]


def test_a_terminal_gets_a_bar_and_the_first_reasons() -> None:
    output, tally = StringIO(), Tally(rows=10, stored=5)
    report = Report(Console(file=output, force_terminal=True, width=100), tally, fraction=1.0)
    with report.running():
        report.tick()
        for number in range(15):
            report.quarantined("rows.jsonl", number, "[bad] id")
        report.quarantined("cut.parquet", None, "it is cut off")
    shown = output.getvalue()
    assert "5 rows done" in shown
    assert "50%" in shown
    assert "Quarantined rows.jsonl:9: [bad] id" in shown
    assert "rows.jsonl:10" not in shown
    assert shown.count("Further ones are only counted here.") == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59, "59 s"), (61, "1 min 1 s"), (7265, "2 h 1 min")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    summary = list(Report(Console(), Tally(rows=1, files=1, seconds=seconds)).summary())
    assert summary[0] == f"1 rows of 1 file in {text}"
