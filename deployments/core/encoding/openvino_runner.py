"""Runs an ONNX graph with OpenVINO."""

import sys
from pathlib import Path
from typing import Any

from deployments.core.encoding.text_tokenizer import Int64s
from deployments.core.errors import ModelError
from deployments.core.segments import Vectors


class OpenVinoRunner:
    """A Runner with `threads` CPU threads. Compiled once, for batches of any shape."""

    engine = "openvino"
    # They come from one pool of the process: half the work of a low-priority caller with two
    # threads was done at normal priority.
    threads_inherit_priority = False

    def __init__(self, file: Path, *, threads: int = 1) -> None:
        openvino = _import_openvino()
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Otherwise it takes bfloat16 where the CPU has it.
            "INFERENCE_PRECISION_HINT": "f32",
            # Replicas on one machine would all be pinned to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            model = openvino.Core().compile_model(str(file), "CPU", options)
        except Exception as error:
            raise ModelError(f"OpenVINO can't load {file}: {error}") from error
        self._request = model.create_infer_request()

    def run(self, ids: Int64s, mask: Int64s) -> Vectors:
        """See Runner."""
        self._request.infer({"input_ids": ids, "attention_mask": mask}, share_inputs=True)
        # Copied: the next run writes to the same memory.
        vectors: Vectors = self._request.get_output_tensor(0).data.copy()
        return vectors


def _import_openvino() -> Any:
    # Its import reports itself to Google Analytics, unless the module that does so is missing.
    telemetry = "openvino_telemetry"
    absent = telemetry not in sys.modules
    if absent:
        sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise ModelError(
            f"OpenVINO isn't installed ({error}); "
            "install it with `pip install embeddings-service[cpu,openvino]`"
        ) from error
    finally:
        if absent:
            del sys.modules[telemetry]
    return openvino
