"""The results for people and for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
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
    previous = None
    for measure in measures:
        group = " ".join(filter(None, (measure.evaluation, measure.data, measure.mode)))
        if group != previous:
            table.add_section()
            table.add_row(f"[bold]{group}[/bold]")
        table.add_row(
            f"  {measure.name}",
            _number(measure.value),
            _number(measure.numpy),
            measure.target or "",
            {True: "[green]met[/green]", False: "[red]MISSED[/red]", None: ""}[measure.met],
        )
        previous = group
    console.print(table)


def write_json(path: Path, outcome: Outcome, about: Mapping[str, Any]) -> None:
    """Write everything that was measured, and what wasn't and why."""
    document = {**about, **asdict(outcome), "targets_met": outcome.targets_met}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == int(value) and abs(value) != 1:
        return f"{int(value):,}"
    return f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.1e}"
