import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest
from backfill_runs import Backfill
from failing_connection import FailingConnection
from folder_samples import fill
from storage_samples import MODEL

from deployments.core.index.segment_index import SegmentIndex

# On a busy machine any example may take long.
hypothesis.settings.register_profile("unit", deadline=None)
hypothesis.settings.load_profile("unit")


@pytest.fixture
def backfill(tmp_path: Path) -> Backfill:
    """Files and runs over a FakeService."""
    return Backfill(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index folder that doesn't exist yet."""
    return tmp_path / "index"


@pytest.fixture
def open_index(folder: Path) -> Iterator[Callable[[], SegmentIndex]]:
    """Opens the folder's index; what is open at the end is closed."""
    with ExitStack() as opened:
        yield lambda: opened.enter_context(SegmentIndex.open(folder, MODEL))


@pytest.fixture
def index(open_index: Callable[[], SegmentIndex]) -> SegmentIndex:
    return open_index()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FailingConnection]]:
    """Makes the store's connections fail; set what fails on the class."""
    connect = sqlite3.connect

    def connect_failing(*arguments: object, **options: object) -> sqlite3.Connection:
        return connect(*arguments, factory=FailingConnection, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(sqlite3, "connect", connect_failing)
    yield FailingConnection
    FailingConnection.fail_before = FailingConnection.fail_after = ()


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which syncing costs nothing, where there is one: a kill loses no writes."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        yield Path(place)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a backup can be made."""
    return tmp_path / "backups" / "monday"


@pytest.fixture
def filled(open_index: Callable[[], SegmentIndex]) -> SegmentIndex:
    """An open index with three transcript segments and a frame."""
    index = open_index()
    fill(index)
    return index


@pytest.fixture
def closed(filled: SegmentIndex) -> Path:
    """The folder of that index, closed."""
    filled.close()
    return filled.folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder for the old service's files."""
    return tmp_path / "old"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """A folder for the new index."""
    return tmp_path / "new"
