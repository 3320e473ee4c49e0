"""txtai with content. Run with: python txtai_server.py MODEL FOLDER PORT"""

import sys
import threading
from typing import Any

from adapter import serve
from txtai import Embeddings

embeddings = Embeddings(path=sys.argv[1], content=True, gpu=False)
# Its own API takes turns too: an update replaces parts that a search reads.
turn = threading.Lock()


def store(ids: list[str], segments: list[dict[str, Any]]) -> None:
    with turn:
        embeddings.upsert(list(zip(ids, segments, strict=True)))


def search(text: str, count: int) -> list[dict[str, Any]]:
    with turn:
        return embeddings.search(text, count)


serve(store, search)
