"""Encodes on the CPU from an ONNX export, in a process that never loads torch."""

import contextlib
import ctypes
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from deployments.core.encoding.onnx_cache import OnnxModel
from deployments.core.encoding.text_encoder import TextKind, Tokens, checked_vectors
from deployments.core.encoding.text_tokenizer import Int64s, TextTokenizer
from deployments.core.errors import ModelError
from deployments.core.segments import ModelIdentity, Vectors
from deployments.core.thread_priority import at_low_priority

SAME_VECTORS = 1e-4
"""How far the probe's vector may be from torch's when the model was exported, per component.
Exports are verified to 1e-5; another CPU or version of an engine may round a bit differently."""

MIN_COSINE = 0.99
"""The least that any quantised vector may have to its exact one."""


class Runner(Protocol):
    """An engine with a graph loaded."""

    engine: str
    """"onnx" or "openvino"."""
    threads_inherit_priority: bool
    """Whether a runner made in a thread of low priority computes with that priority."""

    def run(self, ids: Int64s, mask: Int64s) -> Vectors:
        """The graph's output for ids and attention mask of shape (rows, longest)."""
        ...


class ExportedTextEncoder:
    """A TextEncoder for a model that `onnx_cache` has exported: tokenises, pads, runs, checks.

    `start` loads model.onnx into an engine. Raises ModelError if the engine isn't installed, can't
    load it, or makes other vectors than torch did.
    """

    device = "cpu"

    def __init__(
        self, folder: Path, identity: ModelIdentity, start: Callable[[Path], Runner]
    ) -> None:
        self.identity = identity
        self._graph = folder / "model.onnx"
        self._start = start
        model = OnnxModel.read(folder)
        _check_cosine(model, identity)
        self._tokenizer = load_tokenizer(folder, model)
        self.max_tokens = model.max_tokens
        self._runner = self._started()
        self.backend = self._runner.engine
        self._check(model)

    def tokenize(self, texts: Sequence[str], kind: TextKind) -> list[Tokens]:
        """See TextEncoder."""
        return self._tokenizer.tokenize(texts, kind)

    def encode(self, tokens: Sequence[Tokens]) -> Vectors:
        """See TextEncoder."""
        if not tokens:
            return np.empty((0, self.identity.dimension), dtype=np.float32)
        vectors = self._runner.run(*self._tokenizer.pad(tokens))
        return checked_vectors(vectors, len(tokens), self.identity)

    def for_bulk(self) -> "ExportedTextEncoder | None":
        """See TextEncoder. Costs the graph's memory again."""
        if not self._runner.threads_inherit_priority:
            return None
        # What it shares is the tokenizer, which any number of threads may use.
        bulk = copy(self)
        bulk._runner = at_low_priority(self._started)
        return bulk

    def _started(self) -> Runner:
        runner = self._start(self._graph)
        return_freed_memory()
        return runner

    def _check(self, model: OnnxModel) -> None:
        vector = self.encode(self.tokenize([model.probe_text], "document"))[0]
        wanted = np.asarray(model.probe_vector, np.float32)
        if model.min_cosine is not None:
            _check_cosine(replace(model, min_cosine=float(vector @ wanted)), self.identity)
            return
        difference = float(np.abs(vector - wanted).max())
        if difference > SAME_VECTORS:
            raise ModelError(
                f"the exported model's vector for {model.probe_text!r} is off by {difference:.2g} "
                f"(at most {SAME_VECTORS:.0e}) with this CPU and version of {self.backend}"
            )


def return_freed_memory() -> None:
    """Give back to the system what loading took: glibc would keep 70 MB of a model of 90 MB."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def load_tokenizer(folder: Path, model: OnnxModel) -> TextTokenizer:
    """The tokenizer of an export."""
    from tokenizers import Tokenizer

    return TextTokenizer(
        Tokenizer.from_file(str(folder / "tokenizer.json")),
        max_tokens=model.max_tokens,
        prompts={"query": model.query_prompt, "document": model.document_prompt},
        pad_id=model.pad_id,
        pad_left=model.pad_left,
        truncate_left=model.truncate_left,
    )


def _check_cosine(model: OnnxModel, identity: ModelIdentity) -> None:
    if model.min_cosine is not None and not model.min_cosine >= MIN_COSINE:
        raise ModelError(
            f"int8 vectors of {identity.name} have a cosine to its float32 vectors of only "
            f"{model.min_cosine:.4f}, at least {MIN_COSINE} is needed; set "
            "EMBEDDING_PRECISION=float32"
        )
