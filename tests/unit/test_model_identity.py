import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.core.encoding.model_identity import read_identity, read_max_tokens, with_precision
from deployments.core.encoding.model_source import find_model
from deployments.core.errors import ModelCorrupt, ModelNotFound
from deployments.core.segments import ModelIdentity
from tests.fakes import edit_json, write_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_model(
        tmp_path_factory.mktemp("identity") / "tiny", prompts={"query": "query: "}, dense=12
    )


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "copy")


def fingerprint(folder):
    return read_identity("name", folder).fingerprint


def load(folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def test_the_default_model():
    identity = read_identity("all-MiniLM-L6-v2", find_model("all-MiniLM-L6-v2"))
    assert (identity.name, identity.dimension) == ("all-MiniLM-L6-v2", 384)
    # Stores hold this: if it changes, they all ask for a new model.
    assert identity.fingerprint == (
        "da8b691c17ad80f95951be63cb5ac3f90e322bb06e9bfe023f3e8d59acbef217"
    )


def test_int8_vectors_have_a_fingerprint_of_their_own():
    identity = ModelIdentity("name", "ab" * 32, 384)
    assert with_precision(identity, "float32") == identity
    other = with_precision(identity, "int8")
    assert (other.name, other.dimension) == ("name", 384)
    assert other.fingerprint not in (
        identity.fingerprint,
        with_precision(replace(identity, fingerprint="cd" * 32), "int8").fingerprint,
    )
    # Stores hold it.
    assert other.fingerprint.startswith("2318f9f19107")


def test_the_same_model_saved_again_has_the_same_fingerprint(tmp_path):
    folder = find_model("all-MiniLM-L6-v2")
    load(folder).save(str(tmp_path / "saved"))
    weights = tmp_path / "saved" / "model.safetensors"
    assert weights.read_bytes() != (folder / "model.safetensors").read_bytes()
    assert fingerprint(tmp_path / "saved") == fingerprint(folder)


def test_other_files_and_the_place_do_not_count(tiny, copy):
    (copy / "README.md").write_text("changed")
    (copy / "onnx").mkdir()
    (copy / "onnx" / "model.onnx").write_bytes(b"another format")
    (copy / "pytorch_model.bin").write_bytes(b"used only without safetensors")
    assert fingerprint(copy) == fingerprint(tiny)


def test_vocab_txt_and_tokenizer_json_are_the_same_vocabulary(tiny, copy):
    vocabulary = json.loads((copy / "tokenizer.json").read_text())["model"]["vocab"]
    words = sorted(vocabulary, key=vocabulary.get)
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    assert fingerprint(copy) == fingerprint(tiny)
    (copy / "vocab.txt").write_text("\n".join(reversed(words)), encoding="utf-8")
    assert fingerprint(copy) != fingerprint(tiny)


def flip_last_byte(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def add_word(file):
    content = json.loads(file.read_text())
    content["model"]["vocab"]["added"] = len(content["model"]["vocab"])
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: flip_last_byte(folder / "model.safetensors"),
        lambda folder: flip_last_byte(folder / "2_Dense" / "model.safetensors"),
        lambda folder: edit_json(folder / "1_Pooling" / "config.json", pooling_mode="cls"),
        lambda folder: edit_json(folder / "1_Pooling" / "config.json", include_prompt=False),
        lambda folder: edit_json(folder / "2_Dense" / "config.json", activation_function="torch.x"),
        lambda folder: edit_json(folder / "tokenizer_config.json", model_max_length=16),
        lambda folder: edit_json(
            folder / "config_sentence_transformers.json", prompts={"query": "other: "}
        ),
        lambda folder: add_word(folder / "tokenizer.json"),
        lambda folder: (folder / "modules.json").write_text(
            json.dumps(json.loads((folder / "modules.json").read_text())[:-1])
        ),
    ],
    ids=["weights", "dense", "pooling", "include", "activation", "limit", "prompt", "vocabulary",
         "normalize"],
)  # fmt: skip
def test_what_decides_the_vectors_counts(change, tiny, copy):
    change(copy)
    assert fingerprint(copy) != fingerprint(tiny)


def test_old_and_new_pooling_configs_are_the_same(tiny, copy):
    (copy / "1_Pooling" / "config.json").write_text(
        json.dumps(
            {
                "word_embedding_dimension": 32,
                "pooling_mode_cls_token": False,
                "pooling_mode_mean_tokens": True,
                "pooling_mode_max_tokens": False,
            }
        )
    )
    assert read_identity("name", copy) == read_identity("name", tiny)


def test_dimensions(tiny, copy, tmp_path):
    assert read_identity("name", tiny).dimension == 12
    modules = json.loads((copy / "modules.json").read_text())
    (copy / "modules.json").write_text(json.dumps(modules[:2]))
    assert read_identity("name", copy).dimension == 32
    edit_json(copy / "1_Pooling" / "config.json", pooling_mode=["mean", "max"])
    assert read_identity("name", copy).dimension == load(copy).get_embedding_dimension() == 64


def test_unknown_modules_are_loaded_for_their_dimension(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "market": 1}, unk_token="[UNK]"))
    for seed in (0, 1):
        import torch

        torch.manual_seed(seed)
        module = StaticEmbedding(tokenizer, embedding_dim=7)
        model = SentenceTransformer(modules=[module], device="cpu")
        model.save(str(tmp_path / str(seed)), create_model_card=False)
    assert read_identity("name", tmp_path / "0").dimension == 7
    assert fingerprint(tmp_path / "0") != fingerprint(tmp_path / "1")
    shutil.copytree(tmp_path / "0", tmp_path / "copy")
    assert fingerprint(tmp_path / "copy") == fingerprint(tmp_path / "0")


def edit_transformer(folder, sentence=None, tokenizer=None, positions=None):
    if sentence is not None:
        edit_json(folder / "sentence_bert_config.json", max_seq_length=sentence)
    edit_json(folder / "tokenizer_config.json", model_max_length=tokenizer)
    if positions is not None:
        edit_json(folder / "config.json", max_position_embeddings=positions)


@pytest.mark.parametrize(
    ("sentence", "tokenizer", "limit"),
    [(16, 24, 16), (None, 24, 24), (None, 100, 64), (None, int(1e30), 64), (48, None, 48)],
)
def test_the_token_limit_is_sentence_transformers(sentence, tokenizer, limit, copy):
    edit_transformer(copy, sentence, tokenizer)
    assert read_max_tokens(copy) == limit == load(copy).max_seq_length


def test_a_model_without_a_limit(copy):
    edit_transformer(copy, tokenizer=int(1e30), positions=-1)
    assert read_max_tokens(copy) is None


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        ("modules.json", None, ModelNotFound, "incomplete"),
        ("modules.json", b"{", ModelCorrupt, "can't be read"),
        ("modules.json", b"{}", ModelCorrupt, "not a list of modules"),
        ("modules.json", b"[]", ModelCorrupt, "lists no modules"),
        ("modules.json", b"\xff\xfe", ModelCorrupt, "can't be read"),
        ("modules.json", b'[{"path": "../../etc"}]', ModelCorrupt, "leaves the model's folder"),
        ("modules.json", b'[{"path": "/etc"}]', ModelCorrupt, "leaves the model's folder"),
        ("model.safetensors", None, ModelNotFound, "has no weights"),
        ("model.safetensors", b"", ModelCorrupt, "can't be read as safetensors"),
        ("model.safetensors", b"\xff" * 100, ModelCorrupt, "it has no header"),
        ("2_Dense/model.safetensors", None, ModelNotFound, "has no weights"),
        ("1_Pooling/config.json", None, ModelNotFound, "incomplete"),
    ],
)
def test_broken_models_are_refused(file, content, error, message, copy):
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(content)
    with pytest.raises(error, match=message):
        read_identity("name", copy)


def test_truncated_weights_are_refused(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelCorrupt, match=r"it has \d+ bytes, its header says"):
        read_identity("name", copy)


def test_an_identity_is_read_without_torch():
    program = (
        "import sys\n"
        "from deployments.core.encoding.model_identity import read_identity\n"
        "from deployments.core.encoding.model_source import find_model\n"
        "read_identity('all-MiniLM-L6-v2', find_model('all-MiniLM-L6-v2'))\n"
        "print({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.strip() == "set()"
