"""Exports of tiny models, in this process; test_text_encoder.py has the real one's."""

import json
import logging
import shutil
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

from deployments.core.encoding import onnx_export, onnx_quantize
from deployments.core.encoding.exported_encoder import ExportedTextEncoder
from deployments.core.encoding.model_identity import read_identity
from deployments.core.encoding.model_source import file_sha256
from deployments.core.encoding.onnx_cache import OnnxModel
from deployments.core.encoding.onnx_export import MAX_DIFFERENCE, export_model
from deployments.core.encoding.onnx_quantize import quantize_export
from deployments.core.encoding.onnx_runner import OnnxRunner
from deployments.core.encoding.openvino_runner import OpenVinoRunner
from deployments.core.encoding.sample_sentences import PASSAGES, SENTENCES
from deployments.core.errors import ModelError
from tests.fakes import write_tiny_model

TEXTS = ["the market opens higher today", "a", "", "the market " * 40, "opens, today."]
PROMPTS = {"query": "query : ", "document": "passage : "}

# torch announces the end of the exporter that makes the faster graph, and traces with warnings.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:.*Tracer.*"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


def reference(folder, kind):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    encode = {"query": model.encode_query, "document": model.encode_document}[kind]
    return encode(TEXTS, normalize_embeddings=True)


@pytest.mark.parametrize(
    "options",
    [
        {"prompts": PROMPTS, "dense": 12, "normalize": False},
        {"pooling": "cls"},
        {"pooling": "max"},
        {"pooling": "lasttoken"},
        {"pooling": "weightedmean"},
    ],
    ids=["prompts and dense", "cls", "max", "lasttoken", "weightedmean"],
)
def test_an_export_has_the_models_vectors(options, tmp_path):
    folder = write_tiny_model(tmp_path / "tiny", **options)
    output = tmp_path / "export"
    output.mkdir()
    exported = export_model(folder, "fingerprint", output)
    assert OnnxModel.read(output) == exported
    assert exported.max_difference <= MAX_DIFFERENCE
    encoder = ExportedTextEncoder(output, read_identity("tiny", folder), OnnxRunner)
    for kind in ("query", "document"):
        made = encoder.encode(encoder.tokenize(TEXTS, kind))
        np.testing.assert_allclose(made, reference(folder, kind), atol=1e-5)


def test_the_second_exporter_takes_over(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("not supported")

    monkeypatch.setattr(onnx_export, "_write_torchscript", broken)
    folder = write_tiny_model(tmp_path / "tiny")
    assert export_model(folder, "fingerprint", tmp_path).exporter == "dynamo"
    encoder = ExportedTextEncoder(tmp_path, read_identity("tiny", folder), OnnxRunner)
    made = encoder.encode(encoder.tokenize(TEXTS, "query"))
    np.testing.assert_allclose(made, reference(folder, "query"), atol=1e-5)


def test_an_export_that_differs_from_torch_is_refused(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("not supported")

    monkeypatch.setattr(onnx_export, "MAX_DIFFERENCE", -1.0)
    monkeypatch.setattr(onnx_export, "_write_dynamo", broken)
    folder = write_tiny_model(tmp_path / "tiny")
    reasons = r"torchscript: differs from torch by .*; dynamo: RuntimeError: not supported"
    with pytest.raises(ModelError, match=reasons):
        export_model(folder, "fingerprint", tmp_path)
    assert not (tmp_path / "encoder.json").exists()


def test_a_model_that_tells_queries_from_documents_is_refused(tmp_path):
    folder = write_tiny_model(tmp_path / "tiny", prompts=PROMPTS, include_prompt=False)
    with pytest.raises(ModelError, match="depend on the kind of text"):
        export_model(folder, "fingerprint", tmp_path)


def test_a_model_too_large_for_the_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 1000)
    folder = write_tiny_model(tmp_path / "tiny")
    with pytest.raises(ModelError, match=r"its weights have [\d,]+ bytes"):
        export_model(folder, "fingerprint", tmp_path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny model's identity and its export."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder / "model")
    with warnings.catch_warnings(action="ignore"):
        export_model(folder / "model", "fingerprint", folder)
    return read_identity("tiny", folder / "model"), folder


@pytest.fixture
def export(tiny, tmp_path):
    return shutil.copytree(tiny[1], tmp_path / "copy")


@pytest.fixture(params=[OnnxRunner, OpenVinoRunner])
def runner(request):
    return request.param


def test_every_engine_takes_batches_of_any_shape(runner, tiny):
    encoder = ExportedTextEncoder(tiny[1], tiny[0], runner)
    tokens = encoder.tokenize(TEXTS, "document")
    together = encoder.encode(tokens)
    for rows in (tokens[:1], tokens[3:], tokens, tokens[::-1]):
        wanted = [together[tokens.index(one)] for one in rows]
        np.testing.assert_allclose(encoder.encode(rows), wanted, atol=1e-5)


def test_vectors_stay_as_they_are_when_more_is_encoded(runner, tiny):
    encoder = ExportedTextEncoder(tiny[1], tiny[0], runner)
    tokens = encoder.tokenize(TEXTS, "document")
    first = encoder.encode(tokens)
    copy = first.copy()
    encoder.encode(tokens[::-1])
    np.testing.assert_array_equal(first, copy)


def test_an_encoder_that_no_longer_agrees_with_its_export_is_refused(runner, tiny, export):
    exported = OnnxModel.read(export)
    exported.probe_vector[0] += 1e-3
    exported.write(export)
    with pytest.raises(ModelError, match=r"is off by 0\.001"):
        ExportedTextEncoder(export, tiny[0], runner)


@pytest.mark.parametrize(
    ("module", "runner", "message"),
    [
        ("onnxruntime", OnnxRunner, r"ONNX Runtime isn't installed .*embeddings-service\[cpu\]"),
        ("openvino", OpenVinoRunner, r"OpenVINO isn't installed .*\[cpu,openvino\]"),
    ],
)
def test_without_its_engine_there_is_a_model_error(module, runner, message, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModelError, match=message):
        ExportedTextEncoder(tiny[1], tiny[0], runner)
    assert "openvino_telemetry" not in sys.modules


def test_a_graph_that_cannot_be_loaded_is_a_model_error(runner, tiny, export):
    exported = OnnxModel.read(export)
    (export / "model.onnx").write_bytes(b"not a graph")
    exported.sha256["model.onnx"] = file_sha256(export / "model.onnx")
    exported.write(export)
    with pytest.raises(ModelError, match="can't load"):
        ExportedTextEncoder(export, tiny[0], runner)


@pytest.fixture
def quantized(tiny, tmp_path):
    """The tiny model's 8-bit export."""
    folder = tmp_path / "int8"
    folder.mkdir()
    quantize_export(tiny[1], "int8 fingerprint", folder)
    return folder


def test_an_8_bit_export_says_how_exact_it_is(tiny, quantized):
    exact, made = OnnxModel.read(tiny[1]), OnnxModel.read(quantized)
    assert made.fingerprint == "int8 fingerprint"
    assert made.probe_vector == exact.probe_vector
    encoders = [ExportedTextEncoder(folder, tiny[0], OnnxRunner) for folder in (tiny[1], quantized)]
    texts = [*SENTENCES, *PASSAGES]
    one, other = (
        np.array([encoder.encode([tokens])[0] for tokens in encoder.tokenize(texts, "document")])
        for encoder in encoders
    )
    assert made.min_cosine == pytest.approx((one * other).sum(axis=1).min(), abs=1e-5)
    assert 0.99 < made.min_cosine < 0.99999


@pytest.mark.parametrize("cosine", [0.9876, float("nan")])
def test_an_8_bit_export_that_is_too_inexact_is_refused(cosine, tiny, quantized):
    made = OnnxModel.read(quantized)
    replace(made, min_cosine=cosine).write(quantized)
    message = rf"only {cosine:.4f}, at least 0\.99 is needed; set EMBEDDING_PRECISION=float32"
    with pytest.raises(ModelError, match=message):
        ExportedTextEncoder(quantized, tiny[0], OnnxRunner)


def test_an_8_bit_export_that_became_inexact_is_refused(tiny, quantized):
    made = OnnxModel.read(quantized)
    replace(made, probe_vector=[-value for value in made.probe_vector]).write(quantized)
    with pytest.raises(ModelError, match=r"only -0\.9"):
        ExportedTextEncoder(quantized, tiny[0], OnnxRunner)


def test_a_graph_that_cannot_be_quantized_is_a_model_error(export, tmp_path):
    (export / "model.onnx").write_bytes(b"not a graph")
    exported = OnnxModel(**json.loads((export / "encoder.json").read_text()))
    exported.sha256["model.onnx"] = file_sha256(export / "model.onnx")
    exported.write(export)
    with pytest.raises(SystemExit, match="DecodeError"):
        onnx_quantize.main(str(export), "fingerprint", str(tmp_path))


def test_the_program_ends_with_the_reason(tmp_path, capsys):
    logging.disable()
    try:
        with pytest.raises(SystemExit, match="can't be loaded"):
            onnx_export.main(str(tmp_path / "none"), "fingerprint", str(tmp_path))
    finally:
        logging.disable(logging.NOTSET)
