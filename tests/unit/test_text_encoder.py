"""All encoders against sentence-transformers, with the real model and with tiny odd ones."""

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from deployments.core.encoding import onnx_cache
from deployments.core.encoding.model_identity import read_identity, with_precision
from deployments.core.encoding.model_source import find_model
from deployments.core.encoding.text_encoder import checked_vectors, load_text_encoder
from deployments.core.encoding.torch_encoder import TorchTextEncoder
from deployments.core.errors import ModelError, ModelNotFound, SettingsError
from deployments.core.segments import ModelIdentity
from deployments.core.thread_priority import STEPS_DOWN
from tests.fakes import write_tiny_model

NAME = "all-MiniLM-L6-v2"
SENTENCE = "The relative strength index of the stock rose above seventy before the close."
TEXTS = [
    SENTENCE,
    "rsi",
    "",
    "  \n\t ",
    "Ünïcödé, 你好世界, 🚀 and\x00control\u200bcharacters",
    "tokens of the model's own: [PAD] [SEP] [MASK] [CLS]",
    "when is a stock overbought?",
    "word " * 30,
    SENTENCE * 8,
    SENTENCE * 40,
    "x" * 20_000,
    "12,345.67% " * 90,
]
PROMPTS = {"query": "query : ", "document": "passage : "}


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session", params=["onnx", "openvino", "torch"])
def encoder(request, cache_dir):
    return load_text_encoder(NAME, backend=request.param, threads=2, cache_dir=cache_dir)


def load(folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


@pytest.fixture(scope="session")
def reference():
    return load(find_model(NAME))


def test_all_backends_name_the_same_model(encoder):
    assert encoder.identity == read_identity(NAME, find_model(NAME))
    assert encoder.identity.dimension == 384
    assert encoder.max_tokens == 256
    assert encoder.device == "cpu"


def test_vectors_equal_sentence_transformers(encoder, reference):
    vectors = encoder.encode(encoder.tokenize(TEXTS, "document"))
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    np.testing.assert_allclose(
        vectors, reference.encode(TEXTS, normalize_embeddings=True), atol=1e-5, rtol=0
    )
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_vector_does_not_depend_on_its_batch(encoder):
    tokens = encoder.tokenize(TEXTS, "document")
    together = encoder.encode(tokens)
    for one, vector in zip(tokens, together, strict=True):
        np.testing.assert_allclose(encoder.encode([one])[0], vector, atol=1e-5, rtol=0)


def test_token_ids_equal_sentence_transformers(encoder, reference):
    tokens = encoder.tokenize(TEXTS, "query")
    for text, one in zip(TEXTS, tokens, strict=True):
        assert list(one.ids) == reference.preprocess([text])["input_ids"][0].tolist()


def test_texts_are_cut_at_the_limit_and_say_so(encoder):
    # Each "a" is one token; two more are the model's own.
    texts = ["a " * words for words in (1, 253, 254, 255, 2000)]
    tokens = encoder.tokenize(texts, "document")
    assert [one.truncated for one in tokens] == [False, False, False, True, True]
    assert [len(one) for one in tokens] == [3, 255, 256, 256, 256]
    vectors = encoder.encode(tokens)
    np.testing.assert_array_equal(tokens[2].ids, tokens[3].ids)
    np.testing.assert_allclose(vectors[2], vectors[4], atol=1e-5)


def test_no_texts(encoder):
    assert encoder.tokenize([], "query") == []
    assert encoder.encode([]).shape == (0, 384)


def test_a_bulk_encoder_makes_the_same_vectors_in_threads_that_give_way(encoder):
    if encoder.backend != "onnx":
        assert encoder.for_bulk() is None
        return
    before = niceness_by_thread()
    bulk = encoder.for_bulk()
    tokens = bulk.tokenize(TEXTS, "document")
    np.testing.assert_allclose(bulk.encode(tokens), encoder.encode(tokens), atol=1e-6, rtol=0)
    if sys.platform == "linux":
        after = niceness_by_thread()
        assert {after[thread] for thread in after.keys() - before.keys()} == {STEPS_DOWN}


def niceness_by_thread():
    threads = [thread.id for thread in psutil.Process().threads()]
    return {thread: os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}


def test_int8_is_close_and_a_model_of_its_own(cache_dir, reference):
    encoder = load_text_encoder(NAME, precision="int8", threads=2, cache_dir=cache_dir)
    exact = read_identity(NAME, find_model(NAME))
    assert encoder.identity == with_precision(exact, "int8") != exact
    assert encoder.backend == "onnx"
    for one in (encoder, encoder.for_bulk()):
        tokens = one.tokenize(TEXTS, "document")
        vectors = one.encode(tokens)
        wanted = reference.encode(TEXTS, normalize_embeddings=True)
        cosines = (vectors * wanted).sum(axis=1)
        assert 0.99 < cosines.min() < 0.99999
        for row, vector in zip(tokens, vectors, strict=True):
            np.testing.assert_allclose(one.encode([row])[0], vector, atol=1e-5, rtol=0)


def test_int8_is_never_replaced_by_float32(tmp_path, monkeypatch):
    def fail(*_):
        raise ModelError("not today")

    monkeypatch.setattr(onnx_cache, "_run_exporter", fail)
    folder = write_tiny_model(tmp_path / "tiny")
    with pytest.raises(ModelError, match="not today"):
        load_text_encoder(str(folder), device="cpu", precision="int8", cache_dir=tmp_path)


def test_many_threads_may_tokenize(encoder):
    wanted = encoder.tokenize(TEXTS, "query")
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: encoder.tokenize(TEXTS, "query"), range(50)))
    assert all(result == wanted for result in results)


@pytest.mark.parametrize(("backend", "taken"), [("auto", "onnx"), ("openvino", "openvino")])
def test_a_cpu_process_loads_neither_torch_nor_transformers(backend, taken, encoder, cache_dir):
    # Nor what OpenVINO would report its own import with.
    program = f"""
import sys
from pathlib import Path
from deployments.core.encoding.text_encoder import load_text_encoder
encoder = load_text_encoder({NAME!r}, device="cpu", backend={backend!r}, threads=1,
                            cache_dir=Path({str(cache_dir)!r}))
for encoder in filter(None, (encoder, encoder.for_bulk())):
    encoder.encode(encoder.tokenize(["a query"], "query"))
unwanted = {{"torch", "transformers", "sentence_transformers", "openvino_telemetry"}}
print(encoder.backend, unwanted & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.strip() == f"{taken} set()"


def torch_encoder(folder):
    return TorchTextEncoder(folder, read_identity("tiny", folder), device="cpu", threads=2)


def assert_equals_sentence_transformers(encoder, folder, texts):
    model = load(folder)
    for kind, encode in (("query", model.encode_query), ("document", model.encode_document)):
        made = encoder.encode(encoder.tokenize(texts, kind))
        wanted = encode(texts, normalize_embeddings=True)
        np.testing.assert_allclose(made, wanted, atol=1e-5, rtol=0)
    mixed = encoder.tokenize(texts[:2], "query") + encoder.tokenize(texts[:2], "document")
    wanted = np.concatenate(
        [
            model.encode_query(texts[:2], normalize_embeddings=True),
            model.encode_document(texts[:2], normalize_embeddings=True),
        ]
    )
    np.testing.assert_allclose(encoder.encode(mixed), wanted, atol=1e-5, rtol=0)


TINY_TEXTS = ["the market opens higher today", "a", "", "the market " * 40]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prompts": PROMPTS, "dense": 12, "normalize": False},
        {"prompts": PROMPTS, "include_prompt": False},
        {"prompts": {"query": "query : "}, "pooling": "lasttoken"},
    ],
    ids=["plain", "prompts and dense", "prompt left out of the pooling", "one prompt"],
)
def test_tiny_models_with_torch(options, tmp_path):
    folder = write_tiny_model(tmp_path / "tiny", **options)
    encoder = torch_encoder(folder)
    assert encoder.max_tokens == 32
    assert_equals_sentence_transformers(encoder, folder, TINY_TEXTS)
    flags = [tokens.truncated for tokens in encoder.tokenize(TINY_TEXTS, "query")]
    assert flags == [False, False, False, True]


def test_prompts_make_queries_differ_from_documents(tmp_path):
    encoder = torch_encoder(write_tiny_model(tmp_path / "tiny", prompts=PROMPTS))
    query, document = (encoder.tokenize(["the market"], kind)[0] for kind in ("query", "document"))
    assert query.key != document.key
    plain = torch_encoder(write_tiny_model(tmp_path / "plain"))
    query, document = (plain.tokenize(["the market"], kind)[0] for kind in ("query", "document"))
    assert query.key == document.key


def test_an_asymmetric_model_with_torch(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    document = load(write_tiny_model(tmp_path / "document"))
    tokenizer = Tokenizer.from_file(str(tmp_path / "document" / "tokenizer.json"))
    router = Router.for_query_document(
        query_modules=[StaticEmbedding(tokenizer, embedding_dim=32)],
        document_modules=list(document),
    )
    model = SentenceTransformer(modules=[router], device="cpu")
    model.save(str(tmp_path / "router"), create_model_card=False)
    encoder = torch_encoder(tmp_path / "router")
    assert encoder.identity.dimension == 32
    assert_equals_sentence_transformers(encoder, tmp_path / "router", TINY_TEXTS[:2])
    query, document = (encoder.tokenize(["the market"], kind)[0] for kind in ("query", "document"))
    assert query.key != document.key
    assert encoder.tokenize(["the market " * 40], "document")[0].truncated


def test_vectors_that_are_not_finite_are_an_error(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write_tiny_model(tmp_path / "tiny")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.bias"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    encoder = torch_encoder(folder)
    with pytest.raises(ModelError, match="aren't finite"):
        encoder.encode(encoder.tokenize(["a"], "query"))


def test_half_precision_is_close_and_given_up_if_it_overflows(tmp_path, caplog):
    from safetensors.torch import load_file, save_file

    # What CUDA gets; torch's CPU kernels know half precision too.
    folder = write_tiny_model(tmp_path / "tiny", prompts=PROMPTS)
    encoder = torch_encoder(folder)
    tokens = encoder.tokenize(TINY_TEXTS, "query")
    single = encoder.encode(tokens)
    encoder._halve(folder)
    assert encoder._model.dtype.itemsize == 2
    half = encoder.encode(tokens)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, single, atol=5e-3)
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, atol=1e-5)

    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"].mul_(1e6)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    encoder = torch_encoder(folder)
    single = encoder.encode(tokens)
    encoder._halve(folder)
    assert "Encoding in single precision" in caplog.text
    np.testing.assert_array_equal(encoder.encode(tokens), single)


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((2, 3), np.float32),
        np.zeros((1, 4), np.float32),
        np.zeros((2, 4), np.float64),
        np.full((2, 4), np.inf, np.float32),
    ],
)
def test_wrong_vectors_are_refused(vectors):
    with pytest.raises(ModelError, match="model"):
        checked_vectors(vectors, 2, ModelIdentity("model", "ab", 4))


def test_auto_takes_torch_and_says_why_when_the_export_fails(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise ModelError("differs from torch by 0.2")

    monkeypatch.setattr(onnx_cache, "_run_exporter", fail)
    folder = write_tiny_model(tmp_path / "tiny")
    arguments = {"device": "cpu", "threads": 1, "cache_dir": tmp_path}
    caplog.set_level(logging.WARNING)
    assert load_text_encoder(str(folder), **arguments).backend == "torch"
    assert "with torch instead of ONNX Runtime: differs from torch by 0.2" in caplog.text
    with pytest.raises(ModelError, match="differs from torch"):
        load_text_encoder(str(folder), backend="onnx", **arguments)


def test_threads_are_set(tmp_path):
    import torch

    folder = write_tiny_model(tmp_path / "tiny")
    before = torch.get_num_threads()
    try:
        TorchTextEncoder(folder, read_identity("tiny", folder), device="cpu", threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"backend": "tensorflow"}, SettingsError, "backend is 'tensorflow'"),
        ({"threads": -1}, SettingsError, "threads is -1"),
        ({"backend": "onnx", "device": "cuda"}, SettingsError, "'onnx' runs on the cpu only"),
        ({"backend": "openvino", "device": "mps"}, SettingsError, "'openvino' runs on the cpu"),
        ({"precision": "int4"}, SettingsError, "precision is 'int4'"),
        ({"precision": "int8", "backend": "openvino"}, SettingsError, "needs backend 'onnx'"),
        ({"precision": "int8", "device": "cuda"}, SettingsError, "device is 'cuda'"),
        ({"backend": "torch", "device": "tpu"}, SettingsError, "'tpu' can't be used here"),
        ({"backend": "torch", "device": "cuda:99"}, SettingsError, "'cuda:99' can't be used here"),
        ({"name": "no/such/model"}, ModelNotFound, "none of three places"),
    ],
)
def test_impossible_arguments_are_refused(arguments, error, message, cache_dir):
    with pytest.raises(error, match=message):
        load_text_encoder(**{"name": NAME, "cache_dir": cache_dir, **arguments})
