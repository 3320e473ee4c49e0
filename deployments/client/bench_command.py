"""The command that measures how fast a running service answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deployments.client.options import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    Type,
    Url,
    connect,
    print_json,
    show,
)
from deployments.client.printable import say

if TYPE_CHECKING:
    from deployments.client.load import Load


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command("bench")(bench)


def bench(
    clients: Annotated[int, typer.Option(min=1, max=1000, help="That search at a time.")] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="After a second of warm-up.")] = 10.0,
    kind: Type = "transcript",
    mode: Annotated[
        Literal["semantic", "keyword", "hybrid"], typer.Option(help="Of the searches.")
    ] = "semantic",
    top_k: Annotated[int, typer.Option(min=1, help="Results of a search.")] = 10,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="One a line, in turn; else different phrases from what is stored, since the "
            "service keeps the vectors of queries that come again.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Measure how fast a running service searches.

    Each client sends its next search when the one before is answered. Refused searches (429) are
    counted, not repeated. The exit code is 1 if no search was answered.
    """
    import asyncio

    from rich.console import Console
    from rich.progress import Progress

    from deployments.client.load import measure

    lines = None
    if queries is not None:
        lines = [line for line in queries.read_text("utf-8").splitlines() if line.strip()]
    connect(url, api_key).close()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{clients} clients", total=1.0)
        try:
            load = asyncio.run(
                measure(
                    url,
                    api_key or "",
                    lines,
                    {"embedding_type": kind, "mode": mode, "top_k": top_k},
                    clients,
                    seconds,
                    lambda done: progress.update(task, completed=done),
                )
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    if as_json:
        print_json(load.summary())
    else:
        _print(load)
    if not load.answers_s:
        raise typer.Exit(1)


def _print(load: "Load") -> None:
    from rich import box
    from rich.table import Table

    figures = load.summary()
    names = {
        "clients": "clients",
        "searches": "searches",
        "searches_per_second": "per second",
        "p50_ms": "p50 ms",
        "p95_ms": "p95 ms",
        "p99_ms": "p99 ms",
        "max_ms": "max ms",
    }
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in names.values():
        table.add_column(name, justify="right")
    table.add_row(*("-" if figures[key] is None else f"{figures[key]:,}" for key in names))
    show(table)
    for code, count in load.errors.items():
        say(f"{count} searches were not answered: {code}")
