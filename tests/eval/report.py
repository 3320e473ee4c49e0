"""The results for people and for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.eval.measures import Measure, Outcome


def print_table(measures: Sequence[Measure], console: Console) -> None:
    """Print the measures with the plain ranking's values and the targets."""
    table = Table(title="Quality of answers")
    table.add_column("measure")
    for heading in ("service", "numpy"):
        table.add_column(heading, justify="right")
    table.add_column("target")
    table.add_column("")
    for group, several in groupby(measures, key=_group):
        table.add_section()
        table.add_row(f"[bold]{group}[/bold]")
        for measure in several:
            colour = "green" if measure.met else "red"
            name, *values, met = _cells(measure)
            table.add_row(f"  {name}", *values, f"[{colour}]{met}[/{colour}]" if met else "")
    console.print(table)


def write_json(path: Path, outcome: Outcome, about: Mapping[str, Any]) -> None:
    """Write everything that was measured, and what wasn't and why."""
    document = {**about, **asdict(outcome), "targets_met": outcome.targets_met}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def as_markdown(outcome: Outcome, model: str, when: date) -> str:
    """All measures as tables, for RESULTS.md."""
    lines = ["# Results of `make eval`", "", f"{when}, {model}, the defaults of the service."]
    for group, several in groupby(outcome.measures, key=_group):
        lines += ["", f"## {group}", "", "| measure | service | numpy | target | |"]
        lines += ["|---|---:|---:|---|---|"]
        lines += [f"| {' | '.join(_cells(measure))} |" for measure in several]
    for heading, reasons in (("Not measured", outcome.skipped), ("Failed", outcome.failed)):
        if reasons:
            lines += ["", f"## {heading}", "", *(f"- {reason}" for reason in reasons)]
    return "\n".join(lines) + "\n"


def _group(measure: Measure) -> str:
    return " ".join(filter(None, (measure.evaluation, measure.data, measure.mode)))


def _cells(measure: Measure) -> tuple[str, ...]:
    return (
        measure.name,
        _number(measure.value),
        _number(measure.numpy),
        measure.target or "",
        {True: "met", False: "MISSED", None: ""}[measure.met],
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == int(value) and abs(value) != 1:
        return f"{int(value):,}"
    return f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.1e}"
