"""What the commands have in common: options, folders and printing."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

IndexDir = Annotated[
    Path | None,
    typer.Option(help="The index folder; FAISS_INDEX_DIR if not given.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


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
    typer.echo(json.dumps(document, default=str, ensure_ascii=False))


def model_names(models: Mapping[Any, Any] | None) -> str:
    """The models' names, each once; "?" if they are unknown."""
    return ", ".join(dict.fromkeys(model.name for model in (models or {}).values())) or "?"


def print_counts(counts: Mapping[Any, int]) -> None:
    """Print how many of each type there are."""
    each = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    typer.echo(f"{sum(counts.values())} segments: {each}")
