"""The command that embeds: it prints vectors, or stores segments of a media item."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from deployments.client.options import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    Type,
    Url,
    connect,
    print_json,
)
from deployments.client.printable import say

if TYPE_CHECKING:
    from deployments.client.sync_client import Client

SHOWN_NUMBERS = 4
BEGIN_OF_JSON = re.compile(r"""\s*(\{\s*["}]|\[\s*["{\]]|[{\[]\s*$)""")
"""Unlike that of a line such as "[Applause] thank you"."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Input:
    """Texts, or segments as in `/embed`, and the media item and type that they came with."""

    texts: list[str]
    segments: list[dict[str, Any]] | None = None
    media_item: str | int | None = None
    kind: str | None = None


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command("embed")(embed)


def embed(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Each one text.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Texts, one a line, or JSON; `-` is the standard input."),
    ] = None,
    media_item: Annotated[
        str | None, typer.Option(metavar="ID", help="Store them as segments of this media item.")
    ] = None,
    kind: Type = "transcript",
    replace: Annotated[
        bool, typer.Option("--replace", help="The media item keeps no others of the type.")
    ] = False,
    query: Annotated[
        bool, typer.Option("--query", help="Print the vectors of queries, not of documents.")
    ] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Print the vectors of texts, or store segments.

    Without a media item nothing is stored: the vector of each text is printed, whole with --json.
    With --media-item the texts are stored as its segments 1, 2, 3, …; in JSON, as a list or one a
    line, they are segments as in the service's /embed: `id`, `text`, `start_time`, `end_time` and
    any other field. A whole request of /embed, with its media_item_id, is stored as it says. For
    many media items at once use `backfill`.
    """
    from deployments.client.transport import Retries

    given = _read(texts or [], file)
    item = media_item if media_item is not None else given.media_item
    with connect(url, api_key, attempts=Retries().attempts) as client:
        if item is not None:
            _store(client, given, item, given.kind or kind, replace, as_json)
        elif given.segments is not None:
            raise typer.BadParameter(
                "these are segments; say --media-item ID to store them, or use `backfill` where "
                "each has its own media_item_id"
            )
        elif replace:
            raise typer.BadParameter("--replace needs --media-item")
        else:
            _print_vectors(client, given.texts, query, as_json)


def _read(texts: list[str], file: Path | None) -> Input:
    if texts and file is not None:
        raise typer.BadParameter("give texts or --file, not both")
    if texts:
        return Input(texts)
    if file is None and sys.stdin.isatty():
        raise typer.BadParameter("give texts, a --file, or something on the standard input")
    if file is None or str(file) == "-":
        content = sys.stdin.read()
    else:
        content = file.expanduser().read_text(encoding="utf-8-sig")
    documents = _documents(content)
    if documents is not None:
        return _from_json(documents)
    return Input(_some([line for line in map(str.strip, content.splitlines()) if line]))


def _documents(content: str) -> Any:
    """A JSON document, or the list of those of its lines; None for lines of text."""
    if content.lstrip()[:1] not in ("{", "["):
        return None
    with suppress(ValueError):
        return json.loads(content)
    documents = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            documents += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            if not documents and not BEGIN_OF_JSON.match(line):
                return None
            raise typer.BadParameter(f"line {number} isn't JSON: {error}") from error
    return documents


def _from_json(document: Any) -> Input:
    if isinstance(document, dict):
        for name in ("segments", "frames", "clips"):
            if isinstance(document.get(name), list):
                return Input(
                    [],
                    _some(_checked(document[name])),
                    document.get("media_item_id"),
                    document.get("embedding_type"),
                )
        document = [document]
    if all(isinstance(each, str) for each in document):
        return Input(_some(document))
    return Input([], _checked(document))


def _some(found: list[T]) -> list[T]:
    if not found:
        raise typer.BadParameter("there is no text")
    return found


def _checked(segments: list[Any]) -> list[dict[str, Any]]:
    for position, segment in enumerate(segments):
        if not isinstance(segment, dict):
            raise typer.BadParameter(f"segment {position} (from 0) isn't a JSON object")
    return segments


def _store(
    client: "Client", given: Input, item: str | int, kind: str, replace: bool, as_json: bool
) -> None:
    from deployments.client import calls
    from deployments.client.results import StoredMany
    from deployments.client.transport import value

    segments = given.segments
    if segments is None:
        segments = [{"id": number, "text": text} for number, text in enumerate(given.texts, 1)]
    stored, removed = StoredMany(), 0
    if replace:
        # In one request, since only that is one step.
        call = calls.embed(item, segments, kind, replace=True)
        answer = value(call, client.document(call))
        stored, removed = stored + answer, answer.removed
    else:
        with _progress("Storing", len(segments)) as advance:
            stored = client.store_many(
                [{**segment, "media_item_id": item} for segment in segments],
                kind,  # type: ignore[arg-type]
                progress=lambda so_far: advance(so_far.embeddings_created),
            )
    if as_json:
        document = {"media_item_id": item, "embedding_type": kind, **asdict(stored)}
        print_json(document | {"removed": removed})
        return
    say(
        f"{stored.embeddings_created} {kind} segments of media item {item} are stored, "
        f"{stored.changed} of them new or changed."
    )
    if replace:
        say(f"{removed} others were removed.")
    if stored.truncated:
        say(f"{stored.truncated} are longer than the model reads, and were cut for it.")


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    from deployments.client.batches import BATCH_SIZE

    console, quick = Console(stderr=True), total <= BATCH_SIZE
    with Progress(console=console, transient=True, disable=quick) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


def _print_vectors(client: "Client", texts: list[str], query: bool, as_json: bool) -> None:
    from deployments.client.calls import text_parts
    from deployments.client.results import Embeddings

    found = Embeddings((), "", 0)
    with _progress("Embedding", len(texts)) as advance:
        for part in text_parts(texts):
            more = client.encode(part, input_type="query" if query else "document")
            found = Embeddings.joined(more.model, [found, more])
            advance(len(found.vectors))
    if as_json:
        rows = zip(texts, found.vectors, strict=True)
        print_json(
            {
                "model": found.model,
                "prompt_tokens": found.prompt_tokens,
                "embeddings": [{"text": t, "embedding": v.tolist()} for t, v in rows],
            }
        )
        return
    for text, vector in zip(texts, found.vectors, strict=True):
        numbers = " ".join(f"{number:+.4f}" for number in vector[:SHOWN_NUMBERS])
        say(f"{numbers} … ({len(vector)} numbers)  {text}")
    say(f"By model {found.model}; nothing was stored. --json prints whole vectors.")
