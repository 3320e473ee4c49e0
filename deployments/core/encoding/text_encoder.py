"""Text to vectors: what every encoder does, and the choice of one."""

import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from deployments.core.encoding.cores import usable_cores
from deployments.core.errors import ModelError, SettingsError
from deployments.core.segments import ModelIdentity, Vectors

if TYPE_CHECKING:
    from PIL.Image import Image

    from deployments.core.encoding.exported_encoder import Runner

TextKind = Literal["query", "document"]
"""What a text is: models may prefix queries and documents with different prompts."""

Backend = Literal["auto", "torch", "onnx", "openvino"]

Precision = Literal["float32", "int8"]

DEFAULT_CACHE_DIR = Path("~/.cache/embeddings-service")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenised text, ready to encode.

    `ids` are the model's token ids with its special tokens, at most `max_tokens` of them;
    `truncated` says that the text had more. Two Tokens with the same `key` have the same vector.
    """

    ids: tuple[int, ...]
    truncated: bool = False
    route: str = ""
    """"query" or "document" where the model treats equal ids of the two differently, else ""."""
    text: str | None = None
    """The text itself, only for models that can't encode from ids; of a picture, its digest."""
    picture: "Image | None" = field(default=None, compare=False, repr=False)
    """An image in RGB to encode instead of a text; `ids` then only say about what it costs."""

    @property
    def key(self) -> tuple[tuple[int, ...], str, str | None]:
        """What decides the vector."""
        return (self.ids, self.route, self.text)

    def __len__(self) -> int:
        return len(self.ids)


class TextEncoder(Protocol):
    """A loaded embedding model.

    `tokenize` may be called from several threads at once; `encode` from one thread at a time.
    """

    @property
    def identity(self) -> ModelIdentity:
        """Name, fingerprint and dimension of the model."""
        ...

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text, special tokens included; what is beyond is cut off."""
        ...

    @property
    def backend(self) -> str:
        """ "torch", "onnx" or "openvino"."""
        ...

    @property
    def device(self) -> str:
        """ "cpu", "cuda" or "mps", with an index where one was given."""
        ...

    def tokenize(self, texts: Sequence[str], kind: TextKind) -> list[Tokens]:
        """Tokenise texts, with the model's prompt for their kind. One Tokens for each text."""
        ...

    def encode(self, tokens: Sequence[Tokens]) -> Vectors:
        """Encode in one forward pass, padded to the longest only.

        Returns L2-normalised float32 of shape (len(tokens), dimension), row i for tokens[i].
        Raises ModelError if a value isn't finite.
        """
        ...

    def for_bulk(self) -> "TextEncoder | None":
        """A second encoder of the model whose threads give way to this one's.

        None where two would only be in each other's way, as on a GPU or in one pool of threads.
        """
        ...


@runtime_checkable
class ImageEncoder(TextEncoder, Protocol):
    """A TextEncoder whose model makes comparable vectors of images."""

    def image_tokens(self, picture: "Image", digest: bytes) -> Tokens:
        """What `encode` takes for an image; `digest` tells it from others."""
        ...


def load_text_encoder(
    name: str,
    *,
    device: str = "auto",
    backend: Backend = "auto",
    precision: Precision = "float32",
    threads: int = 0,
    cache_dir: Path | None = None,
) -> TextEncoder:
    """Find a model, load it and return its encoder; takes seconds, the first time up to a minute.

    `device` is "auto", "cpu", "cuda", "cuda:N" or "mps"; `threads` is the number of CPU threads of
    one forward pass, 0 for one per core that this process may use. ONNX exports are kept under
    `cache_dir`, by default `~/.cache/embeddings-service`. With backend "auto", a CPU gets ONNX
    Runtime if the model can be exported and the export agrees with torch; otherwise the reason is
    logged and torch is used. A model of texts and images always gets torch, in its own precision.
    Precision "int8" is ONNX Runtime's only, and never replaced by
    another: its vectors can't be compared with float32 ones.

    Raises ModelNotFound, ModelCorrupt, ModelError (backend "onnx" or "openvino" isn't installed or
    has no usable export) or SettingsError.
    """
    from deployments.core.encoding.model_identity import read_identity, takes_images, with_precision
    from deployments.core.encoding.model_source import find_model

    if backend not in get_args(Backend):
        raise SettingsError(
            f"backend is {backend!r}; expected one of {', '.join(get_args(Backend))}"
        )
    if threads < 0:
        raise SettingsError(f"threads is {threads}; expected 0 (one per core) or more")
    if backend in ("onnx", "openvino") and device not in ("auto", "cpu"):
        raise SettingsError(f"backend {backend!r} runs on the cpu only, but device is {device!r}")
    if precision not in get_args(Precision):
        raise SettingsError(
            f"precision is {precision!r}; expected one of {', '.join(get_args(Precision))}"
        )
    if precision == "int8":
        if backend not in ("auto", "onnx") or not _is_cpu(device):
            raise SettingsError(
                f"precision 'int8' needs backend 'onnx' on the cpu, but backend is {backend!r} and "
                f"device is {device!r}"
            )
        backend = "onnx"
    folder = find_model(name)
    identity = read_identity(name, folder)
    threads = threads or usable_cores()
    if takes_images(folder):
        from deployments.core.encoding.torch_image_encoder import TorchImageEncoder

        return TorchImageEncoder(folder, identity, device=device, threads=threads)
    if backend in ("onnx", "openvino") or (backend == "auto" and _is_cpu(device)):
        from deployments.core.encoding.exported_encoder import ExportedTextEncoder
        from deployments.core.encoding.onnx_cache import cached_export, cached_int8

        cache_dir = cache_dir or DEFAULT_CACHE_DIR.expanduser()
        try:
            export = cached_export(folder, identity, cache_dir)
            if precision == "int8":
                identity = with_precision(identity, precision)
                export = cached_int8(export, identity, cache_dir)
            return ExportedTextEncoder(export, identity, _starter(backend, threads))
        except ModelError as error:
            if backend != "auto":
                raise
            logger.warning("Encoding with torch instead of ONNX Runtime: %s", error)
    from deployments.core.encoding.torch_encoder import TorchTextEncoder

    return TorchTextEncoder(folder, identity, device=device, threads=threads)


def _starter(backend: Backend, threads: int) -> "Callable[[Path], Runner]":
    if backend == "openvino":
        from deployments.core.encoding.openvino_runner import OpenVinoRunner

        return partial(OpenVinoRunner, threads=threads)
    from deployments.core.encoding.onnx_runner import OnnxRunner

    return partial(OnnxRunner, threads=threads)


def checked_vectors(vectors: Vectors, rows: int, identity: ModelIdentity) -> Vectors:
    """The vectors, if they have the right shape and are finite; else raises ModelError."""
    if vectors.shape != (rows, identity.dimension) or vectors.dtype != np.float32:
        raise ModelError(
            f"the model {identity.name} made {vectors.dtype} of shape {vectors.shape}, "
            f"expected float32 of shape {(rows, identity.dimension)}"
        )
    if not np.isfinite(vectors).all():
        raise ModelError(f"the model {identity.name} made vectors that aren't finite")
    return vectors


def _is_cpu(device: str) -> bool:
    """Whether encoding happens on the CPU; imports torch only if that can't be told without."""
    if device != "auto":
        return device == "cpu"
    # A GPU shows in these without loading torch, which takes seconds and 200 MB.
    if sys.platform == "darwin" or shutil.which("nvidia-smi") or Path("/dev/nvidiactl").exists():
        import torch

        return not (torch.cuda.is_available() or torch.backends.mps.is_available())
    return True
