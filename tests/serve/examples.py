"""The examples in the documents: run as a reader would, and compared with the answers."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.documents import ROOT, Block

TOLERANCE = 0.005
TIME_LIMIT_S = 120
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
LEFT_OUT = "…"
RUN = ("sh", "console", "python")


@dataclass(frozen=True)
class Example:
    """Something to run, and what it should print: None where the document doesn't say."""

    block: Block
    expected: Block | None

    @property
    def name(self) -> str:
        """Its first line."""
        return self.block.text.splitlines()[0]


def examples(blocks: Sequence[Block]) -> Iterator[Example]:
    """What can be run of a document's blocks, in order.

    A block of JSON or text below one that runs is what that prints. JSON with a route beside the
    name of its language, as in `json POST /search`, is a request.
    """
    for at, block in enumerate(blocks):
        if block.language in RUN or (block.language == "json" and block.note):
            following = blocks[at + 1] if at + 1 < len(blocks) else None
            answers = following and following.language in ("json", "text") and not following.note
            yield Example(block, following if answers else None)


class Reader:
    """Types examples into a shell that keeps what they export.

    `places` are what a document calls its addresses and folders, and what they are here.
    """

    def __init__(
        self, folder: Path, places: Mapping[str, str], environment: Mapping[str, str]
    ) -> None:
        self._places = places
        self._exports = folder / "exports.sh"
        self._exports.write_text("")
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = {**os.environ, **environment, "PATH": path, "COLUMNS": "100"}

    def run(self, example: Example) -> None:
        """Raises AssertionError if it fails, or prints something else."""
        if example.block.language == "console":
            for command, expected in _commands(example.block.text):
                _compare_text(expected, self._shell(f"exec 2>&1\n{command}"))
            return
        if example.block.language == "python":
            printed = self._run([sys.executable, "-c", self._here(example.block.text)])
        elif example.block.language == "json":
            method, path = example.block.note.split()
            request = json.dumps(json.loads(example.block.text))
            printed = self._shell(
                f"curl -sf -X {method} localhost:8004{path} "
                f"-H 'Content-Type: application/json' -d @- <<'END'\n{request}\nEND"
            )
        else:
            # An error is an answer only where the document shows one.
            careful = "" if example.expected else 'curl() { command curl --fail-with-body "$@"; }\n'
            printed = self._shell(careful + example.block.text)
        if example.expected is None:
            return
        if example.expected.language == "json":
            compare_json(json.loads(example.expected.text), json.loads(printed))
        else:
            _compare_text(example.expected.text, printed)

    def _shell(self, script: str) -> str:
        state = f"'{self._exports}'"
        whole = f". {state}\n{self._here(script)}\nexport -p > {state}"
        return self._run(["bash", "-euo", "pipefail", "-c", whole])

    def _run(self, command: Sequence[str]) -> str:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            printed, complaints = child.communicate(timeout=TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        assert child.returncode == 0, f"{command[-1]}\n{printed}\n{complaints}"
        for theirs, ours in self._places.items():
            printed = printed.replace(ours, theirs)
        return printed

    def _here(self, script: str) -> str:
        for theirs, ours in self._places.items():
            script = script.replace(theirs, ours)
        return script


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command after `$ `, with the lines that it prints."""
    for part in re.split(r"(?m)^\$ ", text)[1:]:
        lines = part.splitlines(keepends=True)
        ends = next(at for at, line in enumerate(lines) if not line.endswith("\\\n"))
        yield "".join(lines[: ends + 1]), "".join(lines[ends + 1 :])


def _compare_text(expected: str, printed: str) -> None:
    parts = [re.escape(part) for part in expected.strip().split(LEFT_OUT)]
    pattern = re.compile(".*?".join(parts), re.S)
    assert pattern.fullmatch(printed.strip()), f"expected\n{expected}\nbut it is\n{printed}"


def compare_json(expected: object, printed: object, where: str = "") -> None:
    """Raises AssertionError where they differ by more than time, rounding and what is left out."""
    message = f"{where}: expected {expected!r}, but it is {printed!r}"
    if expected == LEFT_OUT:
        return
    if isinstance(expected, dict):
        assert isinstance(printed, dict), message
        named = expected.keys() - {LEFT_OUT}
        assert named <= printed.keys(), message
        assert LEFT_OUT in expected or named == printed.keys(), message
        for name, value in expected.items():
            if name == LEFT_OUT:
                continue
            compare_json(value, printed[name], f"{where}.{name}")
    elif isinstance(expected, list):
        assert isinstance(printed, list), message
        if expected[-1:] == [LEFT_OUT]:
            expected = expected[:-1]
            printed = printed[: len(expected)]
        assert len(expected) == len(printed), message
        for at, (one, other) in enumerate(zip(expected, printed, strict=True)):
            compare_json(one, other, f"{where}.{at}")
    elif isinstance(expected, float):
        assert isinstance(printed, float), message
        assert abs(expected - printed) <= TOLERANCE, message
    elif isinstance(expected, str) and TIMESTAMP.fullmatch(expected):
        assert TIMESTAMP.fullmatch(str(printed)), message
    elif isinstance(expected, str) and len(expected) > 1 and expected.endswith(LEFT_OUT):
        assert str(printed).startswith(expected.removesuffix(LEFT_OUT)), message
    else:
        assert type(expected) is type(printed), message
        assert expected == printed, message
