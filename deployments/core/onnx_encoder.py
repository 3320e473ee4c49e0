"""Encodes on the CPU with ONNX Runtime, in a process that never loads torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deployments.core.errors import ModelError
from deployments.core.onnx_cache import OnnxModel
from deployments.core.segments import ModelIdentity, Vectors
from deployments.core.text_encoder import TextKind, Tokens, checked_vectors
from deployments.core.text_tokenizer import TextTokenizer
from deployments.core.thread_priority import at_low_priority

SAME_VECTORS = 1e-4
"""How far the probe's vector may be from torch's when the model was exported, per component.
Exports are verified to 1e-5; another CPU or version of ONNX Runtime may round a bit differently."""


class OnnxTextEncoder:
    """A TextEncoder for a model that `onnx_cache.cached_export` has exported."""

    backend = "onnx"
    device = "cpu"

    def __init__(self, folder: Path, identity: ModelIdentity, *, threads: int = 1) -> None:
        from tokenizers import Tokenizer

        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ImportError as error:
            raise ModelError(f"ONNX Runtime isn't installed ({error})") from error
        self.identity = identity
        self._folder = folder
        self._threads = threads
        model = OnnxModel.read(folder)
        self._tokenizer = TextTokenizer(
            Tokenizer.from_file(str(folder / "tokenizer.json")),
            max_tokens=model.max_tokens,
            prompts={"query": model.query_prompt, "document": model.document_prompt},
            pad_id=model.pad_id,
            pad_left=model.pad_left,
            truncate_left=model.truncate_left,
        )
        self.max_tokens = model.max_tokens
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # It would remember a memory plan for each shape of batch that ever was.
        options.enable_mem_pattern = False
        # Spinning threads answer a lone query 15 % sooner under full load, but at 50 queries a
        # second they burn four times its CPU time, which the rest of the machine needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelError(f"ONNX Runtime can't load {folder / 'model.onnx'}: {error}") from error
        self._check(model)

    def tokenize(self, texts: Sequence[str], kind: TextKind) -> list[Tokens]:
        """See TextEncoder."""
        return self._tokenizer.tokenize(texts, kind)

    def encode(self, tokens: Sequence[Tokens]) -> Vectors:
        """See TextEncoder."""
        if not tokens:
            return np.empty((0, self.identity.dimension), dtype=np.float32)
        ids, mask = self._tokenizer.pad(tokens)
        vectors: Vectors = self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return checked_vectors(vectors, len(tokens), self.identity)

    def for_bulk(self) -> "OnnxTextEncoder":
        """See TextEncoder. Costs as much memory again as this one."""
        return at_low_priority(
            lambda: OnnxTextEncoder(self._folder, self.identity, threads=self._threads)
        )

    def _check(self, model: OnnxModel) -> None:
        vector = self.encode(self.tokenize([model.probe_text], "document"))[0]
        difference = float(np.abs(vector - np.asarray(model.probe_vector, np.float32)).max())
        if difference > SAME_VECTORS:
            raise ModelError(
                f"the exported model's vector for {model.probe_text!r} is off by {difference:.2g} "
                f"(at most {SAME_VECTORS:.0e}) with this CPU and version of ONNX Runtime"
            )
