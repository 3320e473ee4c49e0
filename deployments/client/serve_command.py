"""The command that starts the service on this machine."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from deployments.client.printable import say

PACKAGED_CONFIG = Path(__file__).parents[1] / "serve_config.yaml"

Config = Annotated[
    Path | None,
    typer.Option(
        help="Serve's configuration; else serve_config.yaml here, else one that comes along.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command("serve")(serve)


def serve(
    config: Config = None,
    host: Annotated[
        str | None,
        typer.Option(help="Where to listen; else as configured: 127.0.0.1.", show_default=False),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Else as configured: 8004.", show_default=False),
    ] = None,
    index_dir: Annotated[
        Path | None,
        typer.Option(help="The index folder; FAISS_INDEX_DIR if not given.", show_default=False),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(help="A folder such as data/samples, to fill an empty index with."),
    ] = None,
    log: Annotated[Path, typer.Option(help="Where the service's log goes.")] = Path(
        "data/processed/serve.log"
    ),
) -> None:
    """Start the service on this machine.

    In the foreground, on a Ray of its own; Ctrl-C stops it, and what is stored stays. For
    a cluster use `serve deploy serve_config.yaml`.
    """
    if find_spec("ray") is None:
        raise ModuleNotFoundError("No module named 'ray'", name="ray")
    from deployments import local
    from deployments.client.options import absolute
    from deployments.serve_process import StartError

    if index_dir is not None:
        os.environ["FAISS_INDEX_DIR"] = str(absolute(index_dir))
    try:
        with _configured(config or _default_config(), host, port) as file:
            raise typer.Exit(local.run(file, log, samples))
    except StartError as error:
        say(f"Error: {error}", err=True)
        raise typer.Exit(1) from error


def _default_config() -> Path:
    here = Path("serve_config.yaml")
    return here if here.exists() else PACKAGED_CONFIG


@contextmanager
def _configured(config: Path, host: str | None, port: int | None) -> Iterator[Path]:
    """The configuration's file, or one like it with another address. Raises StartError."""
    if host is None and port is None:
        yield config
        return
    import yaml

    from deployments.serve_process import read_config

    document = read_config(config)
    http = document["http_options"]
    http |= {"host": host} if host is not None else {}
    http |= {"port": port} if port is not None else {}
    with tempfile.TemporaryDirectory(prefix="embeddings-service-") as folder:
        file = Path(folder, "serve_config.yaml")
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        yield file
