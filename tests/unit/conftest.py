from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from storage_samples import MODEL

from deployments.core.segment_index import SegmentIndex


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
