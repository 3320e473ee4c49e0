"""What decides a model's vectors, read from its files without loading it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from deployments.core.encoding.model_source import file_sha256
from deployments.core.encoding.text_encoder import Precision
from deployments.core.errors import ModelCorrupt, ModelNotFound
from deployments.core.segments import ModelIdentity

FINGERPRINT_VERSION = 1
"""Part of every fingerprint. Raising it makes all stores ask for a new model: don't, lightly."""

INT8_VERSION = 1
"""Part of the fingerprints of int8 vectors. To be raised when onnx_quantize makes other ones."""

_TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json",
    "sentence_camembert_config.json", "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json", "sentence_xlnet_config.json",
)  # fmt: skip
_TOKENIZER_FILES = (
    "vocab.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.json",
    "merges.txt",
)  # fmt: skip
_POOLING_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_PROMPT_NAMES = ("query", "document")

Json = dict[str, Any]


def read_identity(name: str, folder: Path) -> ModelIdentity:
    """Name, fingerprint and dimension of the sentence-transformers model in a folder.

    The fingerprint covers the modules of modules.json with their weights and pooling, the token
    limit, the vocabulary and the prompts. It doesn't depend on where the model lies, on its README
    or on further formats of its weights. A model with modules of unknown types is loaded with
    sentence-transformers to learn its dimension, which takes seconds.

    Raises ModelNotFound if a file is missing and ModelCorrupt if one can't be read.
    """
    modules = _read_modules(folder)
    parts = [_module(kind, files) for kind, files in modules]
    decides = {
        "version": FINGERPRINT_VERSION,
        "modules": parts,
        "max_tokens": read_max_tokens(folder),
        "vocabulary": _vocabulary(_input_files(modules)),
        "prompts": _prompts(folder),
    }
    canonical = json.dumps(decides, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    fingerprint = hashlib.sha256(canonical.encode()).hexdigest()
    dimension = _dimension(parts) or _loaded_dimension(folder)
    return ModelIdentity(name=name, fingerprint=fingerprint, dimension=dimension)


def with_precision(identity: ModelIdentity, precision: Precision) -> ModelIdentity:
    """The identity of a model that computes so: int8 vectors have a fingerprint of their own."""
    if precision == "float32":
        return identity
    parts = f"{identity.fingerprint} {precision} {INT8_VERSION}"
    return replace(identity, fingerprint=hashlib.sha256(parts.encode()).hexdigest())


def takes_images(folder: Path) -> bool:
    """Whether the model makes vectors of images too. Raises as read_identity."""
    kind, files = _read_modules(folder)[0]
    return kind == "CLIPModel" or "image" in _modalities(files)


def read_max_tokens(folder: Path) -> int | None:
    """The most tokens of a text as sentence-transformers decides it, None if there is no limit."""
    files = _input_files(_read_modules(folder))
    config = _first_json(files, _TRANSFORMER_CONFIGS)
    limit = config.get("max_seq_length")
    if limit is None:
        arguments = config.get("processor_kwargs") or config.get("tokenizer_args") or {}
        limit = arguments.get("model_max_length")
    if limit is not None:
        return int(limit)
    limits = [
        _first_json(files, ["tokenizer_config.json"]).get("model_max_length"),
        _first_json(files, ["config.json"]).get("max_position_embeddings"),
    ]
    # Without a limit, tokenizer_config.json says 1e30; XLNet says -1 positions.
    usable = [int(limit) for limit in limits if limit is not None and 0 < limit < 10**9]
    return min(usable, default=None)


def _read_modules(folder: Path) -> list[tuple[str, Path]]:
    """Class name and folder of each module that modules.json lists."""
    modules = _read_json(folder / "modules.json")
    found = []
    for module in modules if isinstance(modules, list) else [None]:
        if not isinstance(module, dict) or not isinstance(path := module.get("path"), str):
            raise ModelCorrupt(f"{folder / 'modules.json'} is not a list of modules with paths")
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise ModelCorrupt(f"modules.json names {path!r}, which leaves the model's folder")
        found.append((str(module.get("type")).rsplit(".", 1)[-1], folder / path))
    if not found:
        raise ModelCorrupt(f"{folder / 'modules.json'} lists no modules")
    return found


def _input_files(modules: list[tuple[str, Path]]) -> Path:
    """The folder of the module that reads text, with its tokenizer."""
    return modules[0][1]


def _module(kind: str, files: Path) -> Json:
    """What a module contributes to the fingerprint."""
    if kind == "Transformer":
        lower = bool(_first_json(files, _TRANSFORMER_CONFIGS).get("do_lower_case", False))
        read = {"kind": kind, "weights": _weights(files), "lower": lower}
        if "image" in (modalities := _modalities(files)):
            read |= {"modalities": modalities, "images": _image_processor(files)}
            read["outputs"] = _read_json(files / "config.json").get("projection_dim")
        return read
    if kind == "Pooling":
        config = _read_json(files / "config.json")
        inputs = config.get("embedding_dimension", config.get("word_embedding_dimension"))
        return {
            "kind": kind,
            "modes": _pooling_modes(config),
            "include_prompt": config.get("include_prompt", True),
            "inputs": inputs,
        }
    if kind == "Dense":
        config = _read_json(files / "config.json")
        return {
            "kind": kind,
            "weights": _weights(files),
            "activation": config.get("activation_function"),
            "residual": config.get("use_residual", False),
            "outputs": config.get("out_features"),
            "target": config.get("module_output_name")
            or config.get("module_input_name", "sentence_embedding"),
        }
    if kind in ("Normalize", "Dropout"):
        return {"kind": kind}
    everything = {
        file.relative_to(files).as_posix(): file_sha256(file)
        for file in sorted(files.rglob("*"))
        if file.is_file() and (file.suffix == ".json" or file.name in _WEIGHT_FILES)
    }
    return {"kind": kind, "files": everything}


def _modalities(files: Path) -> Json:
    """What a module of transformers takes besides texts, and by which method."""
    return dict(_first_json(files, _TRANSFORMER_CONFIGS).get("modality_config") or {})


def _image_processor(files: Path) -> Json:
    """How images are made ready; version 5 of transformers has it in another file."""
    processor = _first_json(files, ["processor_config.json"]).get("image_processor")
    return processor or _first_json(files, ["preprocessor_config.json"])


def _dimension(parts: list[Json]) -> int | None:
    """Length of a vector, None if a module could change it in a way that isn't known here."""
    dimension: int | None = None
    for part in parts:
        if part["kind"] == "Transformer" and part.get("outputs"):
            dimension = int(part["outputs"])
        elif part["kind"] == "Pooling" and part["inputs"]:
            dimension = int(part["inputs"]) * len(part["modes"])
        elif part["kind"] == "Dense" and part["target"] == "sentence_embedding":
            dimension = int(part["outputs"])
        elif part["kind"] not in ("Transformer", "Normalize", "Dropout"):
            return None
    return dimension


def _loaded_dimension(folder: Path) -> int:
    from deployments.core.encoding.sentence_model import load_sentence_model

    return int(load_sentence_model(folder, device="cpu").get_embedding_dimension())


def _pooling_modes(config: Json) -> list[str]:
    mode = config.get("pooling_mode")
    if mode is None:
        return [mode for key, mode in _POOLING_MODES.items() if config.get(key)] or ["mean"]
    return [mode] if isinstance(mode, str) else list(mode)


def _prompts(folder: Path) -> Json:
    config = _first_json(folder, ["config_sentence_transformers.json"])
    prompts = config.get("prompts") or {}
    # An empty prompt is the same as none.
    return {name: prompts[name] for name in _PROMPT_NAMES if prompts.get(name)}


def _vocabulary(folder: Path) -> str | None:
    """Hash of the tokenizer's vocabulary; equal for one saved again by another version."""
    digest = hashlib.sha256()
    if (folder / "tokenizer.json").is_file():
        model = _read_json(folder / "tokenizer.json").get("model") or {}
        vocabulary = model.get("vocab") or []
        if isinstance(vocabulary, dict):
            vocabulary = sorted(vocabulary.items(), key=lambda entry: int(entry[1]))
        merges = [merge.split(" ") if isinstance(merge, str) else merge
                  for merge in model.get("merges") or []]  # fmt: skip
        digest.update(json.dumps([vocabulary, merges]).encode())
        return digest.hexdigest()
    found = [name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if found == ["vocab.txt"]:
        words = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
        if words[-1] == "":
            words.pop()
        digest.update(json.dumps([[[word, i] for i, word in enumerate(words)], []]).encode())
        return digest.hexdigest()
    for name in found:
        digest.update(f"{name} {file_sha256(folder / name)}\n".encode())
    return digest.hexdigest() if found else None


_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def _weights(folder: Path) -> str:
    """Hash of a module's weights, whatever their order and metadata in the file."""
    shards = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return _tensors_sha256([folder / "model.safetensors"])
    if shards.is_file():
        names = set((_read_json(shards).get("weight_map") or {}).values())
        return _tensors_sha256([folder / name for name in sorted(map(str, names))])
    if (folder / "pytorch_model.bin").is_file():
        return file_sha256(folder / "pytorch_model.bin")
    raise ModelNotFound(
        f"{folder} has no weights ({' or '.join(_WEIGHT_FILES)}): the model is incomplete"
    )


def _tensors_sha256(files: list[Path]) -> str:
    tensors = sorted(tensor for file in files for tensor in _tensors(file))
    digest = hashlib.sha256()
    for name, dtype, shape, tensor_digest in tensors:
        digest.update(f"{name} {dtype} {shape} {tensor_digest}\n".encode())
    return digest.hexdigest()


def _tensors(file: Path) -> Iterator[tuple[str, str, str, str]]:
    """Name, dtype, shape and hash of each tensor of a safetensors file.

    https://huggingface.co/docs/safetensors#format: the header's length in 8 bytes, little-endian;
    the header in JSON; the data.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            size = file.stat().st_size
            if length > size:
                raise ValueError("it has no header")
            header = dict(json.loads(stream.read(length)))
            end = max((tensor["data_offsets"][1] for name, tensor in header.items()
                       if name != "__metadata__"), default=0)  # fmt: skip
            if 8 + length + end != size:
                raise ValueError(f"it has {size} bytes, its header says {8 + length + end}")
            for name, tensor in header.items():
                # Older versions saved this counter 0, 1, 2… as if it were a weight.
                if name == "__metadata__" or name.endswith("position_ids"):
                    continue
                start, stop = tensor["data_offsets"]
                stream.seek(8 + length + start)
                data = hashlib.sha256(stream.read(stop - start)).hexdigest()
                yield name, tensor["dtype"], str(tensor["shape"]), data
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ModelCorrupt(
            f"{file} can't be read as safetensors: {error}; copy or download the model again"
        ) from error


def _first_json(folder: Path, names: tuple[str, ...] | list[str]) -> Json:
    """The first of these files that exists, {} if none does."""
    for name in names:
        if (folder / name).is_file():
            content = _read_json(folder / name)
            return content if isinstance(content, dict) else {}
    return {}


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelNotFound(f"{file} is missing: the model is incomplete") from error
    except (OSError, ValueError) as error:
        raise ModelCorrupt(
            f"{file} can't be read: {error}; copy or download the model again"
        ) from error
