"""Commands that look at a running service, and the one that removes what it holds."""

import sys
from typing import Annotated, Literal

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


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command("status")(status)
    app.command("stats")(stats)
    app.command("delete")(delete)


def status(as_json: AsJson = False, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Ask whether a search could be served now, and if not, why.

    The service encodes and searches for real. The exit code is 0 if that works, 1 if it doesn't,
    and 4 if nobody answers.
    """
    from deployments.client import calls
    from deployments.client.transport import value

    call = calls.health()
    with connect(url, api_key, attempts=1) as client:
        document = client.document(call)
    health = value(call, document)
    if as_json:
        print_json(document)
    else:
        from deployments.client.display import health_lines

        show(*health_lines(health))
    if not health.healthy:
        raise typer.Exit(1)


def stats(as_json: AsJson = False, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Show the model and the numbers of vectors."""
    from deployments.client import calls
    from deployments.client.transport import value

    call = calls.stats()
    with connect(url, api_key) as client:
        document = client.document(call)
    if as_json:
        print_json(document)
        return
    from deployments.client.display import stats_table

    counts = value(call, document)
    say(f"model {counts.model_name}, {counts.embedding_dimension} dimensions")
    show(stats_table(counts))


def delete(
    media_item: Annotated[str, typer.Argument(metavar="ID", help="The media item.")],
    kind: Annotated[
        Literal["transcript", "frame", "clip"] | None,
        typer.Option("--type", help="Only its segments of this type.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Remove a media item's segments, or those of one type."""
    from deployments.client import calls
    from deployments.client.transport import value

    what = f"{'all' if kind is None else f'all {kind}'} segments of media item {media_item}"
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter(f"say --yes to remove {what}")
        typer.confirm(printable(f"Remove {what} from {url}?"), abort=True, err=True)
    call = calls.delete_media(media_item, kind)
    with connect(url, api_key) as client:
        document = client.document(call)
    if as_json:
        print_json(document)
        return
    count = value(call, document).embeddings_deleted
    say(f"{count} segments of media item {media_item} were removed.")
