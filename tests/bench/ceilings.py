"""What the parts can do without a service around them: the limits that a service approaches."""

import time
from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np

from deployments.core.encoding.cores import usable_cores
from deployments.core.encoding.model_source import find_model
from deployments.core.encoding.text_encoder import load_text_encoder

MODEL = "all-MiniLM-L6-v2"
QUERIES_PER_BATCH = 16


class Ceilings:
    """Encoding by sentence-transformers as it is documented, and a flat Faiss index."""

    def __init__(self) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(usable_cores())
        self._model = SentenceTransformer(str(find_model(MODEL)), device="cpu")
        self._onnx = load_text_encoder(MODEL, device="cpu", backend="onnx")
        self.encode(["warm-up"])

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """`SentenceTransformer.encode`: (len(texts), dimension) float32."""
        return self._model.encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False, batch_size=32
        )

    def encode_segments_per_s(self, texts: Sequence[str]) -> float:
        """How fast that is."""
        started = time.perf_counter()
        self.encode(texts)
        return len(texts) / (time.perf_counter() - started)

    def query_cpu_ms(self, queries: Sequence[str]) -> float:
        """CPU time of a query in ONNX Runtime, encoded in full batches."""
        started = time.process_time()
        for start in range(0, len(queries), QUERIES_PER_BATCH):
            batch = queries[start : start + QUERIES_PER_BATCH]
            self._onnx.encode(self._onnx.tokenize(batch, "query"))
        return 1000 * (time.process_time() - started) / len(queries)

    def faiss_cpu_ms(self, stored: np.ndarray, queries: np.ndarray, top_k: int) -> float:
        """CPU time of a query in IndexFlatIP, in full batches."""
        index: Any = faiss.IndexFlatIP(stored.shape[1])
        index.add(stored)
        started = time.process_time()
        for start in range(0, len(queries), QUERIES_PER_BATCH):
            index.search(queries[start : start + QUERIES_PER_BATCH], top_k)
        return 1000 * (time.process_time() - started) / len(queries)
