"""Runs an ONNX graph with ONNX Runtime."""

from pathlib import Path

from deployments.core.encoding.text_tokenizer import Int64s
from deployments.core.errors import ModelError
from deployments.core.segments import Vectors


class OnnxRunner:
    """A Runner with `threads` CPU threads of its own."""

    engine = "onnx"
    threads_inherit_priority = True

    def __init__(self, file: Path, *, threads: int = 1) -> None:
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ImportError as error:
            raise ModelError(
                f"ONNX Runtime isn't installed ({error}); "
                "install it with `pip install embeddings-service[cpu]`"
            ) from error
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
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelError(f"ONNX Runtime can't load {file}: {error}") from error

    def run(self, ids: Int64s, mask: Int64s) -> Vectors:
        """See Runner."""
        vectors: Vectors = self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return vectors
