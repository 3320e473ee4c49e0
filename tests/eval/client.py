"""Calls to the running service."""

import base64
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
import numpy.typing as npt

from tests.eval.datasets import Document

TIMEOUT_S = 300.0
TEXTS_PER_CALL = 256
CHARS_PER_CALL = 50_000
"""So long a call takes seconds, even of a slow machine."""
ENCODING_THREADS = 2
SEARCH_THREADS = 16

Kind = Literal["query", "document"]
Type = Literal["transcript", "frame", "clip"]
Hit = dict[str, Any]
T = TypeVar("T")


class EvaluationError(Exception):
    """The service can't be measured; the message says why."""


class Client:
    """The service at a URL."""

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_connections=SEARCH_THREADS)
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S, limits=limits)
        (self.model,) = self._call("GET", "/v1/models")["data"]

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def embed(self, texts: Sequence[str], kind: Kind) -> npt.NDArray[np.float32]:
        """The texts' vectors, (len(texts), dimension); equal texts have the same one."""
        unique = list(dict.fromkeys(texts))
        with ThreadPoolExecutor(ENCODING_THREADS) as threads:
            parts = list(threads.map(lambda part: self._embed(part, kind), batches(unique, len)))
        vectors = dict(zip(unique, np.concatenate(parts), strict=True))
        return np.array([vectors[text] for text in texts])

    @contextmanager
    def stored(self, documents: Sequence[Document], embedding_type: Type) -> Iterator[None]:
        """Store documents, one request after the other, and remove them in the end.

        Raises EvaluationError if others are stored already, since these would be found too.
        """
        count = self._call("GET", "/stats")[f"{embedding_type}_vectors"]
        if count:
            raise EvaluationError(
                f"the service holds {count} {embedding_type} vectors, which would be found too; "
                "evaluate an empty one, or leave --url out to have one started"
            )
        media_items = dict.fromkeys(document.media_item_id for document in documents)
        try:
            for media_item_id, members in groupby(documents, lambda one: one.media_item_id):
                for part in batches(list(members), lambda one: len(one.text)):
                    self._store(media_item_id, part, embedding_type)
            yield
        finally:
            removed = sum(self._remove(name, embedding_type) for name in media_items)
        if removed != len(documents):
            raise EvaluationError(f"{removed} of {len(documents)} stored segments were removed")

    def search(
        self, queries: Sequence[str], embedding_type: Type, top_k: int, **further: Any
    ) -> list[list[Hit]]:
        """The results of each query, of many at a time; `further` are more fields of a search."""

        def one(query: str) -> list[Hit]:
            body = {"query": query, "embedding_type": embedding_type, "top_k": top_k, **further}
            results: list[Hit] = self._call("POST", "/search", json=body)["results"]
            return results

        with ThreadPoolExecutor(SEARCH_THREADS) as threads:
            return list(threads.map(one, queries))

    def moments(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """The moments of each query with the service's defaults, of many at a time."""

        def one(query: str) -> list[Hit]:
            body = {"query": query, "top_k": top_k}
            found: list[Hit] = self._call("POST", "/search/moments", json=body)["moments"]
            return found

        with ThreadPoolExecutor(SEARCH_THREADS) as threads:
            return list(threads.map(one, queries))

    def _embed(self, texts: list[str], kind: Kind) -> npt.NDArray[np.float32]:
        answer = self._call(
            "POST",
            "/v1/embeddings",
            json={
                "model": self.model["id"],
                "input": texts,
                "input_type": kind,
                "encoding_format": "base64",
            },
        )
        rows = [base64.b64decode(one["embedding"]) for one in answer["data"]]
        return np.frombuffer(b"".join(rows), "<f4").reshape(len(texts), -1)

    def _store(self, media_item_id: str, documents: list[Document], embedding_type: Type) -> None:
        segments = [
            {
                "id": document.id,
                "text": document.text,
                "start_time": document.start_time,
                "end_time": document.end_time,
                **(document.metadata or {}),
            }
            for document in documents
        ]
        body = {
            "media_item_id": media_item_id,
            "embedding_type": embedding_type,
            "segments": segments,
        }
        stored = self._call("POST", "/embed", json=body)["embeddings_created"]
        if stored != len(documents):
            raise EvaluationError(f"{stored} of {len(documents)} segments were stored")

    def _remove(self, media_item_id: str, embedding_type: Type) -> int:
        path = f"/media/{quote(media_item_id, safe='')}"
        answer = self._call("DELETE", path, params={"embedding_type": embedding_type})
        deleted: int = answer["embeddings_deleted"]
        return deleted

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise EvaluationError(f"{method} {self._http.base_url}{path}: {error}") from error
        if response.is_error:
            raise EvaluationError(f"{method} {path}: {response.status_code} {response.text[:500]}")
        return response.json()


def batches(items: Sequence[T], chars: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in order, in parts that are good for one call."""
    part: list[T] = []
    total = 0
    for item in items:
        size = chars(item)
        if part and (len(part) == TEXTS_PER_CALL or total + size > CHARS_PER_CALL):
            yield part
            part, total = [], 0
        part.append(item)
        total += size
    if part:
        yield part
