"""Other projects to compare with, each in an environment of its own, made on first use."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployments.core.encoding.model_source import find_model
from tests.bench.servers import MODEL, Server, started
from tests.serve.service import free_ports

ENVIRONMENTS = Path("~/.cache/embeddings-service/bench").expanduser()
NO_TELEMETRY = {
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
}


@dataclass(frozen=True, slots=True)
class Peer:
    """What to install and what to run: {bin}, {here}, {model}, {folder} and {port} are filled in.

    torch comes with the rest in one command, so that the version named here is the one installed.
    """

    requirements: tuple[str, ...]
    command: tuple[str, ...]
    ready_path: str = "/health/ready"
    embeds_only: bool = False


PEERS = {
    "chroma": Peer(
        ("torch==2.13.0", "chromadb==1.5.9", "sentence-transformers==6.2.0",
         "transformers==5.24.0", "fastapi==0.165.0", "uvicorn==0.54.0"),
        ("{bin}/python", "{here}/chroma_server.py", "{model}", "{folder}", "{port}"),
    ),
    "txtai": Peer(
        ("torch==2.13.0", "txtai==9.14.0", "faiss-cpu==1.15.1", "transformers==5.24.0",
         "fastapi==0.165.0", "uvicorn==0.54.0"),
        ("{bin}/python", "{here}/txtai_server.py", "{model}", "{folder}", "{port}"),
    ),
    # Its last release needs BetterTransformer, which newer versions of these don't have.
    "infinity": Peer(
        ("torch==2.13.0", "infinity-emb[server,torch]==0.0.77", "transformers==4.48.3",
         "optimum==1.27.0", "sentence-transformers==3.4.1", "click==8.1.8", "numpy==1.26.4"),
        ("{bin}/infinity_emb", "v2", "--model-id", "{model}", "--served-model-name", MODEL,
         "--engine", "torch", "--device", "cpu", "--host", "127.0.0.1", "--port", "{port}"),
        ready_path="/health",
        embeds_only=True,
    ),
}  # fmt: skip


@contextmanager
def peer(name: str, folder: Path) -> Iterator[Server]:
    """A peer, installed if it isn't yet, with an empty store in a folder."""
    spec = PEERS[name]
    environment = _installed(name, spec)
    (port,) = free_ports(1)
    places = {
        "bin": environment / "bin",
        "here": Path(__file__).parent,
        "model": find_model(MODEL),
        "folder": folder,
        "port": port,
    }
    command = [part.format(**places) for part in spec.command]
    with started(
        name,
        command,
        f"http://127.0.0.1:{port}",
        ready_path=spec.ready_path,
        embeds_only=spec.embeds_only,
        environment={**os.environ, **NO_TELEMETRY},
    ) as server:
        yield server


def _installed(name: str, spec: Peer) -> Path:
    """The peer's environment; remade when its requirements have changed."""
    environment = ENVIRONMENTS / name
    made_of = environment / "requirements.txt"
    wanted = "\n".join(spec.requirements)
    if made_of.exists() and made_of.read_text() == wanted:
        return environment
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(environment / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *spec.requirements], check=True)
    made_of.write_text(wanted)
    return environment
