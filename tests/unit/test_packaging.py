"""What is installed with which extra."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}


def test_the_client_needs_nothing_of_the_service() -> None:
    heavy = {"ray", "torch", "fastapi", "transformers", "sentence-transformers", "faiss-cpu"}
    assert not heavy & names(PROJECT["dependencies"] + EXTRAS["client"])
    assert names(PROJECT["dependencies"]) >= {"httpx", "typer", "rich"}


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_what_serves_brings_the_service(extra: str) -> None:
    assert "embeddings-service[server]" in EXTRAS[extra]
    assert names(EXTRAS["server"]) >= {"ray", "torch", "fastapi", "sentence-transformers"}


def test_what_reads_buckets_has_one_version() -> None:
    """Each s3fs and gcsfs wants its own fsspec, and each aiobotocore its own botocore."""
    pinned = names((ROOT / "constraints.txt").read_text().splitlines())
    assert names(EXTRAS["buckets"]) == {"s3fs", "gcsfs"}
    assert pinned >= {"s3fs", "gcsfs", "aiobotocore", "botocore", "boto3", "fsspec"}


def test_a_command_that_needs_the_service_says_how_to_install_it(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['faiss'] = None\n"
        "from deployments.client.cli import app\n"
        f"app(['verify', {str(tmp_path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "Error: verify needs faiss, which isn't installed here: "
        "pip install 'embeddings-service[cpu]'"
    )
