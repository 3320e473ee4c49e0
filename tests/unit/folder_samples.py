"""Index folders for tests of the commands that work on them, and looks at their files."""

import hashlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from storage_samples import FRAME, MODEL, find, segment, store_segments, stored

from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, Id

HERE = Path(__file__).parent
INDEX_FILES = sorted([*(f"{kind}_index.faiss" for kind in EmbeddingType), "store.sqlite3"])


def fill(index: SegmentIndex) -> None:
    """Three transcript segments, one of them after the checkpoint, and a frame."""
    store_segments(index, 1, segment(1, "RSI", speaker="A"), segment("b", "MACD"))
    store_segments(index, "two", segment(1, "a chart"), kind=FRAME)
    index.checkpoint(force=True)
    store_segments(index, 2, segment(3, "after the checkpoint"))


FILLED = {
    (1, 1): ("RSI", {"speaker": "A"}),
    (1, "b"): ("MACD", {}),
    (2, 3): ("after the checkpoint", {}),
}


def transcripts(folder: Path) -> dict[Any, Any]:
    with SegmentIndex.open(folder, MODEL) as index:
        assert index.verify() == []
        assert index.stats().rebuilt == {}
        return {key: (each.text, each.metadata) for key, each in stored(index).items()}


def everything(index: SegmentIndex) -> dict[tuple[Id, Id], str]:
    """The texts of all transcript segments, however many there are."""
    return {
        (hit.media_item_id, hit.segment.id): hit.segment.text
        for hit in find(index, top_k=1_000_000)
    }


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of each file, apart from what SQLite's readers share in memory."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm")
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def change_a_text(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "store.sqlite3")) as connection, connection:
        connection.execute("UPDATE segments SET text='forged' WHERE seq=1")


def execute(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "store.sqlite3")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


WRITER = """
import itertools, sys
sys.path.insert(0, sys.argv[1])
from storage_samples import MODEL, segment, store_segments
from deployments.core.index.segment_index import SegmentIndex
with SegmentIndex.open(sys.argv[2], MODEL) as index:
    for number in itertools.count():
        store_segments(index, number, segment(1, f"text {number}"), segment(2, "x" * 2000))
        if number % 7 == 0:
            store_segments(index, number // 2, segment(1, f"changed by {number}"))
        if number % 50 == 0:
            index.checkpoint()
        print(number, flush=True)
"""


@contextmanager
def writing_process(folder: Path) -> Iterator[Callable[[], int]]:
    """Another process that writes without pause, killed at the end.

    Gives a function that waits for one more write, and returns the last that was acknowledged.
    """
    log = folder.with_name("acknowledged")
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(HERE), str(folder)], stdout=output
        )

    def lines() -> list[str]:
        return log.read_text().split("\n")[:-1]

    def acknowledged() -> int:
        seen = len(lines())
        while len(lines()) == seen:
            assert process.poll() is None
            time.sleep(0.001)
        return int(lines()[-1])

    try:
        yield acknowledged
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
