"""Makes an 8-bit version of an ONNX export and measures how far its vectors are from exact ones.

Runs as a program, `python -m deployments.core.encoding.onnx_quantize EXPORT FINGERPRINT OUTPUT`.
Its last line of output says why it failed.
"""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from deployments.core.encoding.exported_encoder import load_tokenizer
from deployments.core.encoding.model_source import file_sha256
from deployments.core.encoding.onnx_cache import OnnxModel
from deployments.core.encoding.onnx_runner import OnnxRunner
from deployments.core.encoding.sample_sentences import PASSAGES, SENTENCES
from deployments.core.errors import ModelError, ServiceError
from deployments.core.segments import Vectors

BLOCK = 32
"""Values that share a scale. ONNX Runtime's older way, one scale for a whole tensor of activations,
makes a vector depend on its batch, and took the default model's cosines down to 0.84 (0.97 with a
scale for each output of the weights)."""

INT8_ACTIVATIONS = 4
"""ONNX Runtime's `accuracy_level` for multiplying in int8; 0 would turn the weights back."""


def quantize_export(export: Path, fingerprint: str, output: Path) -> OnnxModel:
    """Write model.onnx with 8-bit matrix products, tokenizer.json and encoder.json to a folder.

    The description holds the smallest cosine to float32; it may be too small to use. Raises
    ModelError if the export can't be quantised.
    """
    try:
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import (  # type: ignore[import-untyped]
            MatMulNBitsQuantizer,
        )
    except ImportError as error:
        raise ModelError(
            f"what quantises isn't installed ({error}); "
            "install it with `pip install embeddings-service[cpu]`"
        ) from error
    exact = OnnxModel.read(export)
    try:
        quantizer = MatMulNBitsQuantizer(
            onnx.load(str(export / "model.onnx")),
            bits=8,
            block_size=BLOCK,
            is_symmetric=True,
            accuracy_level=INT8_ACTIVATIONS,
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(output / "model.onnx"), False)
    except Exception as error:
        raise ModelError(f"{type(error).__name__}: {error}") from error
    shutil.copyfile(export / "tokenizer.json", output / "tokenizer.json")
    quantized = replace(
        exact,
        fingerprint=fingerprint,
        min_cosine=_min_cosine(export, output, exact),
        sha256={name: file_sha256(output / name) for name in exact.sha256},
    )
    quantized.write(output)
    return quantized


def _min_cosine(export: Path, output: Path, model: OnnxModel) -> float:
    exact, quantized = (_encode(folder, model) for folder in (export, output))
    cosines = [
        exact(text) @ quantized(text)
        for text in dict.fromkeys([*SENTENCES, *PASSAGES, model.probe_text])
    ]
    # Not min(): it would pass over NaN.
    return float(np.min(cosines))


def _encode(folder: Path, model: OnnxModel) -> Callable[[str], Vectors]:
    tokenizer, runner = load_tokenizer(folder, model), OnnxRunner(folder / "model.onnx")

    def encode(text: str) -> Vectors:
        vector: Vectors = runner.run(*tokenizer.pad(tokenizer.tokenize([text], "document")))[0]
        return vector

    return encode


def main(export: str, fingerprint: str, output: str) -> None:
    """Quantise; exits with status 1 and a last line that says why if it fails."""
    try:
        quantized = quantize_export(Path(export), fingerprint, Path(output))
    except ServiceError as error:
        sys.exit(" ".join(error.detail.split()))
    sys.stdout.write(f"smallest cosine to float32: {quantized.min_cosine:.4f}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
