"""Chroma, persistent. Run with: python chroma_server.py MODEL FOLDER PORT"""

import sys
from typing import Any

import chromadb
from adapter import serve
from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction

model, folder = sys.argv[1:3]
collection = chromadb.PersistentClient(folder).create_collection(
    "segments",
    embedding_function=SentenceTransformerEmbeddingFunction(
        model_name=model, device="cpu", normalize_embeddings=True
    ),
    configuration={"hnsw": {"space": "cosine"}},
)


def store(ids: list[str], segments: list[dict[str, Any]]) -> None:
    collection.upsert(
        ids=ids, documents=[segment["text"] for segment in segments], metadatas=segments
    )


def search(text: str, count: int) -> list[dict[str, Any]]:
    found = collection.query(query_texts=[text], n_results=count)
    return [
        {"similarity": 1 - distance, "metadata": metadata}
        for distance, metadata in zip(found["distances"][0], found["metadatas"][0], strict=True)
    ]


serve(store, search)
