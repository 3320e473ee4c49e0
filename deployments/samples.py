"""The sample data: stored in an empty service, and some searches in it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from deployments.client import Client
from deployments.client.calls import EmbeddingType
from deployments.client.display import clock
from deployments.client.printable import printable

FOLDER = Path("data/samples")
EXAMPLES: tuple[tuple[EmbeddingType, str], ...] = (
    ("transcript", "relative strength index overbought"),
    ("frame", "price chart with a moving average crossover"),
    ("clip", "how much of my account should I risk on one trade?"),
)


def load_samples(client: Client, folder: Path) -> int:
    """Store the sample segments of a folder; returns how many. Raises EmbeddingsError."""
    return sum(
        client.store_many(_segments(folder / f"{kind}s.jsonl"), kind).embeddings_created
        for kind in get_args(EmbeddingType)
    )


def _segments(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def show_examples(client: Client, console: Console) -> None:
    """Print what some searches find. Raises EmbeddingsError."""
    for embedding_type, query in EXAMPLES:
        console.print(f"\n[bold]{query}[/bold] [dim]in {embedding_type}s[/dim]")
        for hit in client.search(query, embedding_type=embedding_type, top_k=3):
            place = f"{hit.media_item_id} at {clock(hit.start_time)}"
            console.print(
                printable(f"  {hit.similarity:.2f}  {place}  {hit.text}"),
                overflow="ellipsis",
                no_wrap=True,
                markup=False,
            )
