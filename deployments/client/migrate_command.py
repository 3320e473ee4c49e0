"""The command that changes the model of a running service."""

import sys
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.client.options import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    Url,
    connect,
    print_json,
    show,
)
from deployments.client.printable import printable, say

if TYPE_CHECKING:
    from deployments.client.sync_client import Client

POLL_S = 0.5
PATH = "/migrations"


class Kind(StrEnum):
    """An index. Typer takes lists of no Literal."""

    TRANSCRIPT = "transcript"
    FRAME = "frame"
    CLIP = "clip"


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command("migrate")(migrate)


def migrate(
    model: Annotated[
        str | None,
        typer.Option(help="The new model: a name as in EMBEDDING_MODEL.", show_default=False),
    ] = None,
    kinds: Annotated[
        list[Kind] | None,
        typer.Option("--type", help="Of this index only; may be repeated.", show_default=False),
    ] = None,
    no_switch: Annotated[
        bool, typer.Option("--no-switch", help="Encode everything, and leave the switch for later.")
    ] = False,
    switch: Annotated[bool, typer.Option("--switch", help="Search with the new model.")] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Search with the old model again.")
    ] = False,
    end: Annotated[
        bool,
        typer.Option(
            "--end", help="Remove the vectors that searches don't use: give up, or finish."
        ),
    ] = False,
    state: Annotated[bool, typer.Option("--status", help="Show how far it is.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Switch as soon as everything is encoded.")
    ] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Change the model without stopping.

    With --model the service encodes every segment anew, in the background; searches use the old
    model meanwhile. Then this shows how alike both models answer, and asks before it switches. It
    may be interrupted: the service goes on, and the same command looks on.
    """
    chosen = [
        name
        for name, is_chosen in (
            ("--model", model is not None),
            ("--switch", switch),
            ("--rollback", rollback),
            ("--end", end),
            ("--status", state),
        )
        if is_chosen
    ]
    if len(chosen) != 1:
        raise typer.BadParameter("say one of --model, --switch, --rollback, --end and --status")
    if model is None and (kinds or no_switch or yes):
        raise typer.BadParameter("--type, --no-switch and --yes belong to --model")
    if no_switch and yes:
        raise typer.BadParameter("--no-switch and --yes contradict each other")
    with connect(url, api_key) as client:
        if model is not None:
            body: dict[str, Any] = {"model": model, "switch_when_ready": yes}
            document = _ask(
                client, "POST", "", body | ({"embedding_types": kinds} if kinds else {})
            )
            document = _watch(client, document, quiet=as_json)
            if _phase(document) == "ready" and not (no_switch or as_json):
                _print(document)
                if _confirmed():
                    document = _ask(client, "POST", "/switch")
        else:
            method, path = {
                "--switch": ("POST", "/switch"),
                "--rollback": ("POST", "/rollback"),
                "--end": ("DELETE", ""),
                "--status": ("GET", ""),
            }[chosen[0]]
            document = _ask(client, method, path)
    if as_json:
        print_json(document)
    else:
        _print(document)
    if _phase(document) == "failed":
        raise typer.Exit(1)


def _ask(client: "Client", method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    from deployments.client.calls import Call

    repeatable = method == "GET"
    return client.document(Call(method, PATH + path, dict, body, repeatable=repeatable))


def _phase(document: Any) -> str | None:
    migration = document["migration"]
    return None if migration is None else str(migration["state"])


def _watch(client: "Client", document: Any, *, quiet: bool) -> Any:
    """Show a bar until nothing is left to encode; the migration as it is then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = Console(stderr=True)
    with Progress("encoding", *columns, console=screen, disable=quiet) as progress:
        task, told = progress.add_task("encoding", total=None), None
        while (migration := document["migration"]) is not None:
            progress.update(task, total=migration["rows"], completed=migration["rows_done"])
            done = migration["state"] == "ready" and not migration["switch_when_ready"]
            if done or migration["state"] in ("switched", "failed"):
                break
            if migration["reason"] not in (None, told) and not quiet:
                told = migration["reason"]
                screen.print(told, markup=False)
            time.sleep(POLL_S)
            document = _ask(client, "GET", "")
    return document


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        say("Nothing was switched; say --yes, or run this with --switch.")
        return False
    return typer.confirm("Search with the new model from now on?")


def _print(document: Any) -> None:
    from rich import box
    from rich.table import Table

    migration = document["migration"]
    if migration is None:
        say("There is no migration.")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("index", "from", "to", "overlap@10", "queries"):
        number = name in ("overlap@10", "queries")
        # A model may be a folder with a long path.
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for kind, index in migration["indices"].items():
        overlap = index["overlap_at_10"]
        table.add_row(
            printable(kind),
            printable(index["from_model"]),
            printable(index["to_model"]),
            "-" if overlap is None else f"{overlap:.2f}",
            str(index["queries"]),
        )
    show(table)
    say(f"{_STATES[migration['state']].format(**migration)}")
    if migration["reason"]:
        say(migration["reason"])


_STATES = {
    "running": "{rows_done} of {rows} segments have vectors of the new model.",
    "ready": "All {rows} segments have vectors of both models; searches use the old one.",
    "switched": "Searches use the new model; --rollback returns, --end removes the old vectors.",
    "failed": "It can't go on, and searches use the old model:",
}
