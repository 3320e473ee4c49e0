"""The routes that are measured, around a peer's store; runs in the peer's own environment."""

import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

Store = Callable[[list[str], list[dict[str, Any]]], None]
"""Stores segments under these ids."""

Search = Callable[[str, int], list[dict[str, Any]]]
"""Finds so many segments for a text."""


def serve(store: Store, search: Search) -> None:
    """Answer on the port that the last argument names, until killed."""
    app = FastAPI()

    @app.get("/health/ready")
    def ready() -> dict[str, str]:
        return {"status": "healthy"}

    @app.post("/embed")
    def embed(request: dict[str, Any]) -> dict[str, int]:
        segments = request["segments"]
        ids = [f"{request['media_item_id']}-{segment['id']}" for segment in segments]
        store(ids, segments)
        return {"embeddings_created": len(segments)}

    @app.post("/search")
    def find(request: dict[str, Any]) -> dict[str, Any]:
        return {"results": search(request["query"], request["top_k"])}

    uvicorn.run(app, port=int(sys.argv[-1]), log_level="warning")
