"""What the commands have in common: options, folders and printing."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deployments.client.calls import DEFAULT_URL as DEFAULT_URL
from deployments.client.printable import say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from deployments.client.sync_client import Client

FILE_WIDTH = 120
"""Characters of a line that doesn't go to a terminal."""


IndexDir = Annotated[
    Path | None,
    typer.Option(help="The index folder; FAISS_INDEX_DIR if not given.", show_default=False),
]
Url = Annotated[str, typer.Option(envvar="EMBEDDINGS_SERVICE_URL", help="The service.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="EMBEDDINGS_API_KEY",
        help="Sent with each request; of several the first.",
        show_default=False,
    ),
]
Type = Annotated[
    Literal["transcript", "frame", "clip"], typer.Option("--type", help="What the segments are.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def connect(url: str, api_key: str | None, *, attempts: int = 2) -> "Client":
    """A client for the options given; somebody waits, so it soon gives up.

    Raises typer.BadParameter for what can't be used.
    """
    from deployments.client.sync_client import Client
    from deployments.client.transport import Retries

    try:
        return Client(url, api_key or "", retries=Retries(attempts))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def show(*renderables: "RenderableType") -> None:
    """Print tables and the like: as wide as the terminal, or wide enough for a file."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if console.is_terminal:
        for each in renderables:
            console.print(each)
        return
    if "COLUMNS" not in os.environ:
        console = Console(highlight=False, markup=False, width=FILE_WIDTH)
    for each in renderables:
        with console.capture() as printed:
            console.print(each)
        typer.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


def index_folder(given: Path | None) -> Path:
    """The folder that was given, else FAISS_INDEX_DIR. Raises SettingsError."""
    if given is not None:
        return absolute(given)
    from deployments.core.settings import Settings

    return Settings.load().faiss_index_dir


def absolute(path: Path) -> Path:
    """The path from the root, `~` and `..` resolved but no links."""
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolve() would follow links


def print_json(document: Mapping[str, Any]) -> None:
    """Print one line; paths become strings."""
    text = json.dumps(document, default=str, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # A path with bytes that aren't UTF-8.
        text = json.dumps(document, default=str)
    typer.echo(text)


def model_names(models: Mapping[Any, Any] | None) -> str:
    """The models' names, each once; "?" if they are unknown."""
    return ", ".join(dict.fromkeys(model.name for model in (models or {}).values())) or "?"


def print_counts(counts: Mapping[Any, int]) -> None:
    """Print how many of each type there are."""
    each = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    say(f"{sum(counts.values())} segments: {each}")
