"""Index, Encoder and REST API as plain objects in one process: the whole service without Ray."""

import asyncio
import pickle
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from deployments.backend import ServeBackend
from deployments.core.encoding.batcher import Encoded
from deployments.core.settings import Settings
from deployments.encoder import Encoder
from deployments.encoders import Encoders
from deployments.index import Index
from deployments.rest.application import create_app


class Handle:
    """A DeploymentHandle of one replica in this process; what it carries is copied."""

    def __init__(self, replica: Any) -> None:
        self.replica = replica
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return _Method(self, name)


class _Method:
    def __init__(self, handle: Handle, name: str) -> None:
        self._handle = handle
        self._name = name

    def remote(self, *arguments: Any) -> "asyncio.Future[Any]":
        copied = pickle.loads(pickle.dumps(arguments))
        self._handle.calls.append((self._name, copied))
        return asyncio.ensure_future(getattr(self._handle.replica, self._name)(*copied))


class Encoding:
    """Encodes for migrations with the Encoder, on the event loop that it works on."""

    client: TestClient
    encoder: Encoder

    def __call__(self, *arguments: Any) -> Encoded:
        portal = self.client.portal
        assert portal is not None
        return portal.call(self.encoder.encode_anew, *arguments)

    def stop(self) -> None:
        """The Encoder goes on for longer than the Index."""


class WholeService:
    """A running service; `client` asks it, `encoder` and `index` keep the calls between parts."""

    def __init__(self, client: TestClient, encoder: Handle, index: Handle) -> None:
        self.client = client
        self.encoder = encoder
        self.index = index

    def get(self, path: str, **arguments: Any) -> Any:
        return self.client.get(path, **arguments)

    def post(self, path: str, body: Any) -> Any:
        return self.client.post(path, json=body)

    def embed(
        self, media_item_id: Any, segments: Any, kind: str = "transcript", **more: Any
    ) -> Any:
        body = {"media_item_id": media_item_id, "embedding_type": kind, "segments": segments}
        response = self.post("/embed", body | more)
        assert response.status_code == 200, response.text
        return response.json()

    def search(self, query: str, kind: str = "transcript", **more: Any) -> Any:
        response = self.post("/search", {"query": query, "embedding_type": kind, **more})
        assert response.status_code == 200, response.text
        return response.json()["results"]


@contextmanager
def whole_service(folder: Path, **settings: Any) -> Iterator[WholeService]:
    """A service over a folder, with settings that differ from the defaults."""
    chosen = Settings(faiss_index_dir=folder, **settings)
    encoding = Encoding()
    index = Index(chosen, encoding)
    with ExitStack() as opened:
        opened.callback(index.close)
        index_handle = Handle(index)
        encoding.encoder = Encoder(chosen, index_handle)  # type: ignore[arg-type]
        encoder_handle = Handle(encoding.encoder)
        encoders = Encoders(encoder_handle, None, timeout_s=60)  # type: ignore[arg-type]
        backend = ServeBackend(chosen, encoders, index_handle)  # type: ignore[arg-type]
        encoding.client = TestClient(create_app(backend, chosen), "http://localhost")
        client = opened.enter_context(encoding.client)
        # Before the event loop ends, on which a migration may be encoding.
        opened.callback(index.close)
        yield WholeService(client, encoder_handle, index_handle)
