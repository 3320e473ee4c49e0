"""Which modules may import what."""

import subprocess
import sys
from pathlib import Path

import pytest

import deployments.core

CORE = Path(deployments.core.__file__).parent
MODULES = sorted(path.stem for path in CORE.glob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_core_imports_neither_ray_nor_fastapi(module: str) -> None:
    name = "deployments.core" if module == "__init__" else f"deployments.core.{module}"
    program = (
        f"import sys, {name}\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'ray', 'fastapi', 'starlette'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
