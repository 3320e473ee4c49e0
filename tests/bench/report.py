"""The rows of a comparison as tables, JSON and Markdown."""

import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import psutil
from rich.table import Table

from deployments.core.encoding.cores import usable_cores
from tests.bench.comparison import ROUNDS, STORED, Row

LIBRARIES = ("ray", "faiss-cpu", "onnxruntime", "torch", "sentence-transformers", "fastapi")


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """A table for each group of rows with the same columns."""
    for columns, group in groupby(rows, key=_columns):
        table = Table()
        table.add_column("measure")
        table.add_column("")
        for column in columns:
            table.add_column(column, justify="right")
        for row in group:
            table.add_row(row.measure, row.server, *_cells(row, columns))
        yield table


def as_json(rows: Sequence[Row]) -> str:
    """Machine and rows."""
    return (
        json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=2) + "\n"
    )


def as_markdown(rows: Sequence[Row], when: date, texts: int) -> str:
    """Machine and tables, for RESULTS.md."""
    lines = [
        "# Results of `make bench`",
        "",
        f"{when}, {texts} distinct texts. Medians of {ROUNDS} interleaved rounds, {STORED} "
        "segments stored before the searches, ratios taken round by round. The machine is "
        "shared: compare within the run.",
        "",
        *(f"- {name}: {value}" for name, value in machine().items()),
    ]
    for columns, group in groupby(rows, key=_columns):
        lines += [
            "",
            f"| measure | | {' | '.join(columns)} |",
            f"|---|---|{'---:|' * len(columns)}",
            *(
                f"| {row.measure} | {row.server} | {' | '.join(_cells(row, columns))} |"
                for row in group
            ),
        ]
    return "\n".join(lines) + "\n"


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    return {
        "processor": f"{_processor()}, {usable_cores()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _columns(row: Row) -> list[str]:
    kind = row.measure.partition(",")[0]
    ratios = {
        "ingest": ["x raw encode"],
        "search": ["calls a query", "x requests/s", "x p50", "CPU ms besides"],
    }.get(kind, list(row.ratios))
    figures = [name for name in row.figures if name not in ratios]
    return [*figures, *ratios]


def _cells(row: Row, columns: Sequence[str]) -> list[str]:
    values = row.figures | row.ratios
    return [_shown(values[column]) if column in values else "" for column in columns]


def _shown(value: float) -> str:
    return f"{value:.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"
