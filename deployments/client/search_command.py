"""The command that searches."""

import json
from typing import Annotated, Any, Literal

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
from deployments.client.printable import say

GROUP_SIZE = 3
MOST_CONTEXT = 10
"""As the service allows."""

Query = Annotated[list[str], typer.Argument(metavar="QUERY", help="What to look for.")]
Type = Annotated[
    Literal["transcript", "frame", "clip", "all"],
    typer.Option("--type", help="Where to look; `all` finds moments, by all three."),
]
Mode = Annotated[
    Literal["semantic", "keyword", "hybrid"] | None,
    typer.Option(
        help="By meaning, by words, or by both; else by meaning, and `all` by both.",
        show_default=False,
    ),
]
TopK = Annotated[int, typer.Option(min=1, help="How many results.")]
MinSimilarity = Annotated[
    float, typer.Option(min=0, max=1, help="Leave out results below this similarity.")
]
Filter = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="JSON",
        help="""Only segments that match, such as '{"speaker": "Instructor"}'.""",
    ),
]
MediaItem = Annotated[
    list[str] | None,
    typer.Option(metavar="ID", help="Only segments of this media item; repeatable."),
]
Group = Annotated[
    bool, typer.Option("--group", help=f"A media item once, with up to {GROUP_SIZE} hits.")
]
Context = Annotated[
    int,
    typer.Option(min=0, max=MOST_CONTEXT, help="So many neighbouring segments before and after."),
]


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command("search")(search)


def search(
    query: Query,
    kind: Type = "transcript",
    mode: Mode = None,
    top_k: TopK = 10,
    min_similarity: MinSimilarity = 0.0,
    condition: Filter = None,
    media_item: MediaItem = None,
    group: Group = False,
    context: Context = 0,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Find where something was said or shown.

    With --json: the answer of the service's /search, or with --type all of /search/moments.
    """
    from deployments.client import calls
    from deployments.client.transport import value

    if group and kind == "all":
        raise typer.BadParameter("--group and --type all don't go together: moments are groups")
    common: dict[str, Any] = {
        "mode": mode,
        "top_k": top_k,
        "min_similarity": min_similarity,
        "filter": _filter(condition, media_item),
        "context": context or None,
    }
    text = " ".join(query)
    with connect(url, api_key) as client:
        if kind == "all":
            moments = calls.moments(text, common)
            document = client.document(moments)
        else:
            groups = {"group_by": "media_item_id", "group_size": GROUP_SIZE} if group else {}
            hits = calls.search(
                text, {"embedding_type": kind, "highlight": True, **common, **groups}
            )
            document = client.document(hits)
    if as_json:
        print_json(document)
        return
    from deployments.client.display import hits_table, moments_table

    if kind == "all":
        stretches = value(moments, document)
        table = moments_table(stretches)
    else:
        segments = value(hits, document)
        table = hits_table(segments)
    if table.row_count == 0:
        say(_nothing(kind, mode, min_similarity))
    else:
        show(table)


def _filter(condition: str | None, media_items: list[str] | None) -> dict[str, Any] | None:
    parts: list[dict[str, Any]] = []
    if condition is not None:
        try:
            given = json.loads(condition)
        except ValueError as error:
            raise typer.BadParameter(f"--filter isn't JSON: {error}") from error
        if not isinstance(given, dict):
            raise typer.BadParameter(
                """--filter isn't a JSON object, such as '{"speaker": "Instructor"}'"""
            )
        parts.append(given)
    if media_items:
        parts.append({"media_item_id": {"$in": media_items}})
    return {"$and": parts} if len(parts) > 1 else next(iter(parts), None)


def _nothing(kind: str, mode: str | None, min_similarity: float) -> str:
    hints = []
    if min_similarity > 0:
        hints.append("a lower --min-similarity")
    if mode == "keyword":
        hints.append("--mode hybrid")
    if kind != "all":
        hints.append("--type all")
    return "Nothing was found." + (f" Try {' or '.join(hints)}." if hints else "")
