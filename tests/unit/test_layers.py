"""Which modules may import what."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import deployments.core
import deployments.rest

CORE = Path(deployments.core.__file__).parent
REST = Path(deployments.rest.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(CORE.parents[1]).with_suffix("").parts)
    for path in CORE.rglob("*.py")
    if path.name != "__init__.py"
)
BELOW = {
    "": set(),
    "vectors": {""},
    "storage": {"", "vectors"},
    "encoding": {""},
    "search": {"", "vectors", "storage"},
    "index": {"", "vectors", "storage", "encoding", "search"},
    "folders": {"", "vectors", "storage", "encoding", "search", "index"},
    "api": {"", "vectors", "storage", "encoding", "search", "index"},
}
"""What each package of core may import when it is imported itself; "" are the modules beside."""


@pytest.mark.parametrize("module", MODULES)
def test_core_imports_neither_ray_nor_fastapi(module: str) -> None:
    program = (
        f"import sys, {module}\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'ray', 'fastapi', 'starlette'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_core_imports_downwards(module: str) -> None:
    own = package(module)
    path = CORE.parents[1].joinpath(*module.split(".")).with_suffix(".py")
    upwards = [
        name
        for name in imported(path)
        if name.startswith("deployments") and package(name) not in {own, *BELOW[own]}
    ]
    assert not upwards


@pytest.mark.parametrize("path", sorted(REST.rglob("*.py")), ids=lambda path: path.name)
def test_rest_knows_what_is_behind_it_as_protocols_only(path: Path) -> None:
    # Ray tells the current request's id, and nobody else could.
    beside = ("deployments.__version__", "deployments.request_ids.")
    allowed = ("deployments.core.", "deployments.rest.", *beside)
    others = [
        name
        for name in imported(path)
        if name.startswith(("deployments", "ray.")) and not name.startswith(allowed)
    ]
    assert not others


def package(module: str) -> str:
    """The package of core that a module is in; a part of the name if it is outside of core."""
    parts = module.split(".")
    if parts[:2] != ["deployments", "core"]:
        return module
    return parts[2] if len(parts) > 2 and parts[2] in BELOW else ""


def imported(path: Path) -> Iterator[str]:
    """What a module imports when it is imported itself, not later and not for its types only."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module is not None:
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
