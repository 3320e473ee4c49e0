"""Keeps models exported to ONNX on disk, each exported once, by one process, and verified."""

import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from deployments.core.encoding.model_source import file_sha256
from deployments.core.errors import ModelCorrupt, ModelError
from deployments.core.segments import ModelIdentity

FORMAT_VERSION = 1
"""Raise it when exports change; older ones stay where they are and aren't used."""

EXPORT_TIMEOUT_S = 900

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """An export's description, its encoder.json, beside model.onnx and tokenizer.json.

    model.onnx maps `input_ids` and `attention_mask`, int64 of shape (rows, longest), to
    L2-normalised float32 of shape (rows, dimension); pooling is inside.
    """

    fingerprint: str
    max_tokens: int
    query_prompt: str
    document_prompt: str
    pad_id: int
    pad_left: bool
    truncate_left: bool
    exporter: str
    max_difference: float
    """Largest difference to torch of a component, when it was exported."""
    probe_text: str
    probe_vector: list[float]
    """What torch made of `probe_text` as a document."""
    sha256: dict[str, str]
    min_cosine: float | None = None
    """Of an 8-bit export: the smallest cosine to float32 that its sample_sentences had."""

    def write(self, folder: Path) -> None:
        """Write encoder.json."""
        (folder / "encoder.json").write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "OnnxModel":
        """Read encoder.json and check the files beside it. Raises ModelCorrupt."""
        try:
            content = (folder / "encoder.json").read_text(encoding="utf-8")
            model = cls(**json.loads(content))
            for name, expected in model.sha256.items():
                if file_sha256(folder / name) != expected:
                    raise ModelCorrupt(f"{folder / name} isn't what was exported")
        except (OSError, ValueError, TypeError) as error:
            raise ModelCorrupt(f"the export in {folder} can't be read: {error}") from error
        return model


def cached_export(folder: Path, identity: ModelIdentity, cache_dir: Path) -> Path:
    """The folder of a model's ONNX export, exporting it first if it isn't there.

    The export runs in a process of its own, for up to a minute, so that this one never loads
    torch. Of several processes that want the same one, the first makes it and the others wait.

    Raises ModelError if the model can't be exported or its export isn't close enough to torch.
    """
    return _cached(identity, cache_dir, lambda made: _run_exporter(folder, identity, made))


def cached_int8(export: Path, identity: ModelIdentity, cache_dir: Path) -> Path:
    """The folder of the 8-bit version of an export, made as `cached_export` makes that.

    `identity` is that of the 8-bit model. What was made may be too inexact to use: see
    `OnnxModel.min_cosine`.
    """
    return _cached(identity, cache_dir, lambda made: _run_quantizer(export, identity, made))


def _cached(identity: ModelIdentity, cache_dir: Path, make: Callable[[Path], None]) -> Path:
    export = cache_dir / "onnx" / f"{identity.fingerprint}-v{FORMAT_VERSION}"
    # Without the lock first: a finished export may lie on a read-only disk, as in an image.
    if _is_intact(export):
        return export
    try:
        export.parent.mkdir(parents=True, exist_ok=True)
        with _locked(export.with_suffix(".lock")):
            if not _is_intact(export):
                _make(identity, export, make)
    except OSError as error:
        raise ModelError(f"exports can't be kept in {export.parent}: {error}") from error
    return export


def _is_intact(export: Path) -> bool:
    if not export.exists():
        return False
    try:
        OnnxModel.read(export)
    except ModelCorrupt as error:
        logger.warning("The model must be exported again: %s", error)
        return False
    return True


def _make(identity: ModelIdentity, export: Path, make: Callable[[Path], None]) -> None:
    """Export beside the final place and rename. The lock is held: nobody else writes here."""
    logger.info("Exporting %s to ONNX, once, to %s", identity.name, export)
    partial = export.with_suffix(".partial")
    try:
        for stale in (partial, export):
            if stale.exists():
                shutil.rmtree(stale)
        partial.mkdir()
        make(partial)
        OnnxModel.read(partial)
        _sync(partial)
        partial.rename(export)
        _sync_folder(export.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _run_exporter(folder: Path, identity: ModelIdentity, made: Path) -> None:
    _run("deployments.core.encoding.onnx_export", folder, identity, made)


def _run_quantizer(export: Path, identity: ModelIdentity, made: Path) -> None:
    _run("deployments.core.encoding.onnx_quantize", export, identity, made)


def _run(program: str, source: Path, identity: ModelIdentity, made: Path) -> None:
    # The child finds `deployments` where this process did, which may be Ray's working_dir.
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", program, str(source), identity.fingerprint, str(made)]
    try:
        child = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=EXPORT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"exporting {identity.name} to ONNX took more than {EXPORT_TIMEOUT_S} s"
        ) from error
    if child.returncode != 0:
        lines = child.stdout.strip().splitlines() or [f"exit status {child.returncode}"]
        logger.debug("The export of %s failed:\n%s", identity.name, child.stdout)
        raise ModelError(f"{identity.name} can't be exported to ONNX: {lines[-1]}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the system releases it even if this process is killed."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
