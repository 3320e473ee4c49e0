"""The command that stores many segments from files."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from deployments.client.options import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    Type,
    Url,
    absolute,
    print_json,
)
from deployments.client.printable import say
from deployments.core.errors import InvalidInput

if TYPE_CHECKING:
    from deployments.backfill.plan import Connect

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE", help="Files, folders, patterns, or URLs such as s3://bucket/*.jsonl."
    ),
]
Map = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="FIELD=COLUMN", help="Which column has a field; repeatable."),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        metavar="KEY=VALUE",
        help="Metadata for all segments, beside what rows and <name>.json files say; repeatable.",
    ),
]
Pattern = Annotated[
    str | None,
    typer.Option(
        "--media-item-pattern",
        metavar="REGEX",
        help="Finds the media item in a file's path: its first group, or the whole match.",
    ),
]
FormatName = Annotated[
    Literal["jsonl", "csv", "parquet", "srt", "vtt"] | None,
    typer.Option("--format", help="Of all files; else by their extensions.", show_default=False),
]
Encoding = Annotated[
    str | None,
    typer.Option(help="Of text; else UTF-8, UTF-16 or Windows-1252.", show_default=False),
]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace", help="Media items keep no other segments of the type than the source's."
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Stop after so many rows.")]
MaxRate = Annotated[
    float | None, typer.Option(min=0.01, help="Store at most so many segments a second.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read and check all, send nothing.")]
QuarantineFile = Annotated[
    Path | None, typer.Option(help="Where rows go that can't be stored, with the reason.")
]
Progress = Annotated[
    Path | None, typer.Option(help="Remembers what is done, for when it runs again.")
]
OF_HTTP = ("url", "api_key")
"""Parameters that only the way by HTTP has."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to the service, in place of HTTP: the object of the command's context.

    `name` tells its progress files from others'. `max_text_chars` is the limit of a text that is to
    be checked here, where no Ingress does.
    """

    connect: "Connect"
    name: str
    max_text_chars: int | None = None


class BackfillCommand(TyperCommand):
    """A command whose wrong usage has exit code 1: 2 means that rows are quarantined."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what was typed."""
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            error.exit_code = 1
            raise


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command("backfill", cls=BackfillCommand)(backfill)


def backfill(
    ctx: typer.Context,
    sources: Sources,
    kind: Type = "transcript",
    columns: Map = None,
    metadata: Metadata = None,
    media_item_pattern: Pattern = None,
    form: FormatName = None,
    encoding: Encoding = None,
    replace: Replace = False,
    limit: Limit = None,
    max_rate: MaxRate = None,
    quarantine: QuarantineFile = None,
    progress: Progress = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Store segments from JSONL, CSV, Parquet, SRT and WebVTT files.

    Killed at any moment and run again, it goes on, and stores nothing twice. Exit codes: 0 all rows
    are stored, 2 some are quarantined, 1 it could not be done.
    """
    import asyncio
    from dataclasses import asdict

    from rich.console import Console

    from deployments.backfill.http_destination import by_http
    from deployments.backfill.mapping import RowMapping
    from deployments.backfill.mapping_options import column_map, constant_metadata
    from deployments.backfill.plan import Connect, Plan
    from deployments.backfill.progress_file import ProgressFile
    from deployments.backfill.report import Report
    from deployments.backfill.run import run
    from deployments.backfill.sources import find_files
    from deployments.backfill.tally import Tally
    from deployments.core.segments import EmbeddingType

    if replace and limit is not None:
        raise InvalidInput(
            "--limit would cut a media item off, and --replace remove the rest of it"
        )
    way: Way = ctx.obj or Way(lambda _: by_http(url, api_key), url)
    mapping = RowMapping(
        EmbeddingType(kind),
        column_map(columns or []),
        constant_metadata(metadata or []),
        _pattern(media_item_pattern),
        way.max_text_chars,
    )
    options = [kind, columns, metadata, media_item_pattern, encoding, replace, way.name]
    connect: Connect | None = None if dry_run else way.connect
    plan = Plan(
        find_files(sources, form),
        mapping,
        connect,
        encoding,
        replace,
        limit,
        max_rate,
        absolute(quarantine) if quarantine else None,
        ProgressFile(absolute(progress), options) if progress else None,
    ).checked()
    tally = Tally()
    report = Report(Console(stderr=True), tally)
    try:
        asyncio.run(run(plan, report))
    finally:
        if as_json:
            print_json({**asdict(tally), "exit_code": tally.exit_code})
        else:
            say("\n".join(report.summary()))
    raise typer.Exit(tally.exit_code)


def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidInput(f"--media-item-pattern is {text!r}: {error}") from error
