"""Runs a command of the command line again and again, each time killed one step later.

    python kill_points.py <template folder> <work folder> <command and its arguments>

A step is a call of Python's that changes the file system. `{}` in the arguments is a copy of the
template, made anew for every run; its subfolder `index` is the index folder. After each kill a
new process says what the index holds ("survived"), and the command is run once more, to its end
("repeated"). One JSON document a kill goes to standard output.
"""

import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

import rich.console
import rich.table  # noqa: F401
from storage_samples import MODEL, stored

from deployments.client.cli import app
from deployments.core import settings  # noqa: F401
from deployments.core.encoding import model_identity, model_source, text_encoder  # noqa: F401
from deployments.core.errors import ServiceError
from deployments.core.folders import backup, export, legacy_import, restore  # noqa: F401
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType

_CHANGES = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "sqlite3.connect"}


def kill_everywhere(template: Path, *command: str) -> list[dict[str, Any]]:
    """What this program says of a command, in a process of its own: here threads are running."""
    with tempfile.TemporaryDirectory(dir=template.parent) as work:
        done = subprocess.run(
            [sys.executable, __file__, str(template), work, *command],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    template, work, *command = sys.argv[1:]
    # The command line takes the dimension from a model's files.
    model_source.find_model = Path
    model_identity.read_identity = lambda name, folder: MODEL
    with suppress(SystemExit), redirect_stderr(io.StringIO()):
        app(["verify"])  # so that not every child has to import what this imports
    before: list[str] = []
    for step in itertools.count(1):
        place = Path(work) / str(step)
        shutil.copytree(template, place)
        arguments = [argument.replace("{}", str(place)) for argument in command]
        status = in_child(lambda arguments=arguments, step=step: run(arguments, kill_at=step))
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, f"step {step} failed: {status}"
            return
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        left = files(place)
        # Between some steps nothing happens to the files.
        if left != before:
            print(json.dumps({"step": step, "files": left, **observe(place, arguments)}))
        before = left
        shutil.rmtree(place)


def observe(place: Path, arguments: list[str]) -> dict[str, Any]:
    # Looked at in a copy: opening an index changes it.
    looked_at = place.with_name("looked-at")
    shutil.copytree(place, looked_at)
    survived = answer(lambda: contents(looked_at / "index"))
    shutil.rmtree(looked_at)
    status = in_child(lambda: run(arguments))
    return {
        "survived": survived,
        "repeated_status": os.WEXITSTATUS(status) if os.WIFEXITED(status) else "killed",
        "repeated": answer(lambda: contents(place / "index")),
        "repeated_files": files(place),
    }


def in_child(action: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitpid(child, 0)[1]


def answer(ask: Callable[[], Any]) -> Any:
    """What a child process finds out; this one never opens an index."""
    reading, writing = os.pipe()
    in_child(lambda: os.write(writing, json.dumps(ask()).encode()) and None)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return json.loads(pipe.read())


def run(arguments: list[str], kill_at: int = 0) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    done = 0

    def count(event: str, details: tuple[Any, ...]) -> None:
        nonlocal done
        written = event == "open" and isinstance(details[2], int) and details[2] & os.O_CREAT
        if event in _CHANGES or written:
            done += 1
            if done == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    if kill_at:
        sys.addaudithook(count)
    app(arguments)


def contents(folder: Path) -> Any:
    """All segments as text, or the name of the error that keeps from opening the index."""
    try:
        with SegmentIndex.open(folder, MODEL) as index:
            assert index.verify() == []
            return sorted(
                f"{kind} {media!r} {name!r} {segment.text}"
                for kind in EmbeddingType
                for (media, name), segment in stored(index, kind).items()
            )
    except ServiceError as error:
        return type(error).__name__


def files(place: Path) -> list[str]:
    """Paths and sizes."""
    return sorted(
        f"{path.relative_to(place)} {path.stat().st_size}"
        for path in place.rglob("*")
        if path.is_file()
    )


if __name__ == "__main__":
    main()
