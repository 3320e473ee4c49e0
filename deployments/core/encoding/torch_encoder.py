"""Encodes with torch, through sentence-transformers: any of its models, on any device."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deployments.core.encoding.sentence_model import (
    load_sentence_model,
    model_max_tokens,
    model_prompts,
    model_tokenizer,
    token_counter,
)
from deployments.core.encoding.text_encoder import TextKind, Tokens, checked_vectors
from deployments.core.errors import ModelError
from deployments.core.segments import ModelIdentity, Vectors

logger = logging.getLogger(__name__)


class TorchTextEncoder:
    """A TextEncoder for every model that sentence-transformers loads without running its code.

    On CUDA it computes in half precision, unless the model's values overflow it. `threads` sets
    torch's CPU threads for the whole process.
    """

    backend = "torch"

    def __init__(
        self, folder: Path, identity: ModelIdentity, *, device: str = "auto", threads: int = 1
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self._torch = torch
        self.identity = identity
        self._model = load_sentence_model(folder, device)
        self.device = str(self._model.device)
        self._prompts = model_prompts(self._model)
        self._tokenizer = model_tokenizer(self._model)
        self._count = {kind: token_counter(self._model, kind) for kind in self._prompts}
        self.max_tokens = model_max_tokens(self._model)
        if self._model.device.type == "cuda":
            self._halve(folder)

    def tokenize(self, texts: Sequence[str], kind: TextKind) -> list[Tokens]:
        """See TextEncoder. Texts that only sentence-transformers can prepare go along as text."""
        if self._tokenizer is not None:
            return self._tokenizer.tokenize(texts, kind)
        count, prompt = self._count[kind], self._prompts[kind]
        return [Tokens(*count(prompt + text), route=kind, text=text) for text in texts]

    def encode(self, tokens: Sequence[Tokens]) -> Vectors:
        """See TextEncoder. Takes a pass for each kind if the model tells queries from documents."""
        vectors = np.empty((len(tokens), self.identity.dimension), dtype=np.float32)
        for route in sorted({one.route for one in tokens}):
            positions = [i for i, one in enumerate(tokens) if one.route == route]
            vectors[positions] = self._forward([tokens[i] for i in positions], route)
        return vectors

    def for_bulk(self) -> None:
        """See TextEncoder. None: a GPU takes batches in turn, and torch's threads on a CPU spin."""
        return

    def _forward(self, tokens: Sequence[Tokens], route: str) -> Vectors:
        task = {"task": route} if route else {}
        return checked_vectors(
            self._run(self._features(tokens, route), **task), len(tokens), self.identity
        )

    def _run(self, features: dict[str, Any], **task: str) -> Vectors:
        with self._torch.inference_mode():
            features = {name: self._moved(value) for name, value in features.items()}
            embeddings = self._model(features, **task)["sentence_embedding"].float()
            embeddings = self._torch.nn.functional.normalize(embeddings, p=2, dim=1)
            vectors: Vectors = embeddings.cpu().numpy()
        return vectors

    def _moved(self, value: Any) -> Any:
        """The value where the model is, in its precision if it has one."""
        if not isinstance(value, self._torch.Tensor):
            return value
        dtype = self._model.dtype if value.is_floating_point() else value.dtype
        return value.to(self._model.device, dtype)

    def _features(self, tokens: Sequence[Tokens], route: str) -> dict[str, Any]:
        if self._tokenizer is None:
            prompt = self._prompts["query" if route == "query" else "document"]
            texts = [one.text for one in tokens]
            features: dict[str, Any] = self._model.preprocess(texts, prompt=prompt, task=route)
            return features
        ids, mask = self._tokenizer.pad(tokens)
        return {
            "input_ids": self._torch.from_numpy(ids),
            "attention_mask": self._torch.from_numpy(mask),
            "modality": "text",
        }

    def _halve(self, folder: Path) -> None:
        """Half precision, if the model can do with it."""
        probe = self.tokenize(["half precision " * 100, "half"], "document")
        self._model.half()
        try:
            self.encode(probe)
        except ModelError as error:
            logger.warning("Encoding in single precision: %s", error)
            # Loaded anew: converting back wouldn't restore what the weights have lost.
            self._model = load_sentence_model(folder, self.device)
