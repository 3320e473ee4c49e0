"""The design that most people would write: one process, FastAPI, encode, IndexFlatL2, lists.

Run with: uvicorn tests.bench.baseline:app
"""

from typing import Any

import faiss
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

from deployments.core.encoding.model_source import find_model

app = FastAPI()
model = SentenceTransformer(str(find_model("all-MiniLM-L6-v2")), device="cpu")
dimension = len(model.encode("dimension"))
indices: dict[str, Any] = {}
metadata: dict[str, list[dict[str, Any]]] = {}


class Embed(BaseModel):
    media_item_id: int | str
    embedding_type: str
    segments: list[dict[str, Any]]


class Search(BaseModel):
    query: str
    embedding_type: str = "transcript"
    top_k: int = 10


@app.get("/health/ready")
def ready() -> dict[str, str]:
    return {"status": "healthy"}


@app.post("/embed")
def embed(request: Embed) -> dict[str, int]:
    texts = [segment["text"] for segment in request.segments]
    vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    kind = request.embedding_type
    indices.setdefault(kind, faiss.IndexFlatL2(dimension)).add(vectors)
    metadata.setdefault(kind, []).extend(
        {"media_item_id": request.media_item_id, **segment} for segment in request.segments
    )
    return {"embeddings_created": len(texts)}


@app.post("/search")
def search(request: Search) -> dict[str, Any]:
    vector = model.encode([request.query], normalize_embeddings=True, show_progress_bar=False)
    distances, rows = indices[request.embedding_type].search(vector, request.top_k)
    return {
        "results": [
            {
                "similarity": 1 - float(distance) / 2,
                "metadata": metadata[request.embedding_type][row],
            }
            for distance, row in zip(distances[0], rows[0], strict=True)
            if row >= 0
        ]
    }
