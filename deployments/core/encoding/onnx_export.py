"""Exports a sentence-transformers model to ONNX, with pooling and normalisation in the graph.

Runs as a program, `python -m deployments.core.encoding.onnx_export FOLDER FINGERPRINT OUTPUT`, so
that the process that serves never loads torch. Its last line of output says why it failed.
"""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from deployments.core.encoding.model_source import file_sha256
from deployments.core.encoding.onnx_cache import OnnxModel
from deployments.core.encoding.sentence_model import load_sentence_model, model_tokenizer
from deployments.core.encoding.text_encoder import Tokens
from deployments.core.encoding.text_tokenizer import Int64s, TextTokenizer
from deployments.core.errors import ModelError, ServiceError

MAX_DIFFERENCE = 1e-5
"""To torch, of any component of any vector of the verification batches."""

MAX_BYTES = 1_900_000_000
"""ONNX keeps weights inside the model's file up to 2 GB only."""

PROBE_TEXT = "The order was filled at the open, well above yesterday's close."

_BATCHES = ((1, 1.0), (1, 0.0), (2, 0.05), (3, 1.0), (8, 0.1), (16, 0.4), (33, 0.05))
"""Verification batches: rows, and the longest row between 0 (shortest) and 1 (the limit)."""


def export_model(folder: Path, fingerprint: str, output: Path) -> OnnxModel:
    """Write model.onnx, tokenizer.json and encoder.json to a folder.

    torch's two exporters are tried, and the first export that agrees with torch is kept.

    Raises ModelError if the model's inputs aren't plain token ids, if it can't be exported or if
    its export differs from torch by more than MAX_DIFFERENCE.
    """
    import torch

    # The eager attention is the one that exporters and ONNX Runtime's fusions know.
    model = load_sentence_model(folder, "cpu", model_kwargs={"attn_implementation": "eager"})
    tokenizer = model_tokenizer(model)
    if tokenizer is None:
        raise ModelError("its inputs are more than token ids, or depend on the kind of text")
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if size > MAX_BYTES:
        raise ModelError(f"its weights have {size:,} bytes, ONNX files hold {MAX_BYTES:,}")
    graph = _graph(torch, model)
    file = output / "model.onnx"
    failures = []
    for name, write in (("torchscript", _write_torchscript), ("dynamo", _write_dynamo)):
        try:
            write(torch, graph, tokenizer, file)
            difference = _largest_difference(torch, graph, file, tokenizer)
        except Exception as error:
            failures.append(f"{name}: {type(error).__name__}: {_one_line(error)}")
            continue
        if difference <= MAX_DIFFERENCE:
            break
        failures.append(f"{name}: differs from torch by {difference:.2g}")
    else:
        raise ModelError("; ".join(failures))
    (output / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    exported = OnnxModel(
        fingerprint=fingerprint,
        max_tokens=tokenizer.max_tokens,
        query_prompt=tokenizer.prompts["query"],
        document_prompt=tokenizer.prompts["document"],
        pad_id=tokenizer.pad_id,
        pad_left=tokenizer.pad_left,
        truncate_left=tokenizer.truncate_left,
        exporter=name,
        max_difference=difference,
        probe_text=PROBE_TEXT,
        probe_vector=_run_torch(
            torch, graph, *tokenizer.pad(tokenizer.tokenize([PROBE_TEXT], "document"))
        )[0].tolist(),
        sha256={name: file_sha256(output / name) for name in ("model.onnx", "tokenizer.json")},
    )
    exported.write(output)
    return exported


def _graph(torch: Any, model: Any) -> Any:
    class Graph(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            embeddings = self.model({**features, "modality": "text"})["sentence_embedding"]
            return torch.nn.functional.normalize(embeddings.float(), p=2, dim=1)

    return Graph().eval()


def _example(torch: Any, tokenizer: TextTokenizer) -> tuple[Any, Any]:
    """Two rows of different lengths, so that no exporter takes the mask for constant."""
    texts = [PROBE_TEXT, PROBE_TEXT[:20]]
    ids, mask = tokenizer.pad(tokenizer.tokenize(texts, "document"))
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _write_torchscript(torch: Any, graph: Any, tokenizer: TextTokenizer, file: Path) -> None:
    axes = {0: "rows", 1: "longest"}
    torch.onnx.export(
        graph,
        _example(torch, tokenizer),
        str(file),
        dynamo=False,
        opset_version=17,
        input_names=["input_ids", "attention_mask"],
        output_names=["embeddings"],
        dynamic_axes={"input_ids": axes, "attention_mask": axes, "embeddings": {0: "rows"}},
    )


def _write_dynamo(torch: Any, graph: Any, tokenizer: TextTokenizer, file: Path) -> None:
    shape = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        graph,
        _example(torch, tokenizer),
        dynamo=True,
        opset_version=18,
        input_names=["input_ids", "attention_mask"],
        output_names=["embeddings"],
        dynamic_shapes={"input_ids": shape, "attention_mask": shape},
        verbose=False,
    )
    program.save(str(file), external_data=False)


def _largest_difference(torch: Any, graph: Any, file: Path, tokenizer: TextTokenizer) -> float:
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    differences = []
    for batch in _verification_batches(tokenizer):
        ids, mask = tokenizer.pad(batch)
        made = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        wanted = _run_torch(torch, graph, ids, mask)
        # Not max() of both: it would pass over NaN.
        differences.append(np.abs(made - wanted).max())
    return float(np.max(differences))


def _run_torch(torch: Any, graph: Any, ids: Int64s, mask: Int64s) -> Any:
    with torch.inference_mode():
        return graph(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()


def _verification_batches(tokenizer: TextTokenizer) -> list[list[Tokens]]:
    """Batches of many shapes, of mixed lengths, with tokens from the whole vocabulary."""
    random = np.random.default_rng(0)
    words = tokenizer.vocabulary()
    limit = min(tokenizer.max_tokens, 512)
    batches = []
    for rows, part in _BATCHES:
        longest = max(1, round(part * limit))
        counts = random.integers(1, longest, rows, endpoint=True)
        counts[0] = longest
        texts = [" ".join(random.choice(words, count)) for count in counts]
        batches.append(tokenizer.tokenize(texts, "document"))
    return batches


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def main(folder: str, fingerprint: str, output: str) -> None:
    """Export; exits with status 1 and a last line that says why if it fails."""
    logging.basicConfig(level=logging.WARNING)
    # Both exporters warn of things that the verification would find if they mattered.
    warnings.simplefilter("ignore")
    try:
        exported = export_model(Path(folder), fingerprint, Path(output))
    except ServiceError as error:
        sys.exit(error.detail)
    sys.stdout.write(f"{exported.exporter}, within {exported.max_difference:.1e} of torch\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
