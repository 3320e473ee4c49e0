"""What becomes of writes that the disk or SQLite refuses."""

import errno
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from failing_connection import FailingConnection, sqlite_error
from storage_samples import (
    CLIP,
    FRAME,
    MODEL,
    TRANSCRIPT,
    find,
    segment,
    store_segments,
    stored,
    upsert_of,
)

from deployments.core.errors import (
    InvalidInput,
    NotReady,
    ServiceError,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreUnwritable,
)
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import UpsertResult
from deployments.core.storage import store as store_module
from deployments.core.storage.group_commit import GroupCommit
from deployments.core.storage_errors import translated


@pytest.mark.parametrize(
    ("error", "expected", "advice"),
    [
        (sqlite_error("SQLITE_FULL"), StoreFull, "Free space"),
        (sqlite_error("SQLITE_READONLY"), StoreUnwritable, "permissions"),
        (sqlite_error("SQLITE_READONLY_DBMOVED"), StoreUnwritable, "permissions"),
        (sqlite_error("SQLITE_IOERR_FSYNC"), StoreUnwritable, "dmesg"),
        (sqlite_error("SQLITE_IOERR_WRITE"), StoreUnwritable, "dmesg"),
        (sqlite_error("SQLITE_IOERR_CORRUPTFS"), StoreDamaged, "backup"),
        (sqlite_error("SQLITE_CANTOPEN"), StoreUnwritable, "permissions"),
        (sqlite_error("SQLITE_CORRUPT"), StoreDamaged, "backup"),
        (sqlite_error("SQLITE_CORRUPT_INDEX"), StoreDamaged, "backup"),
        (sqlite_error("SQLITE_NOTADB"), StoreDamaged, "backup"),
        (sqlite_error("SQLITE_BUSY"), StoreUnwritable, "another process"),
        (sqlite_error("SQLITE_BUSY_SNAPSHOT"), StoreUnwritable, "another process"),
        (sqlite_error("SQLITE_TOOBIG"), InvalidInput, "larger than SQLite"),
        (sqlite_error("SQLITE_ERROR"), StoreError, "SQLITE_ERROR"),
        (sqlite3.ProgrammingError("Cannot operate on a closed database."), NotReady, "closed"),
        (OSError(errno.ENOSPC, "No space left"), StoreFull, "Free space"),
        (OSError(errno.EDQUOT, "Quota exceeded"), StoreFull, "Free space"),
        (OSError(errno.EROFS, "Read-only"), StoreUnwritable, "mount options"),
        (OSError(errno.EIO, "Input/output error"), StoreUnwritable, "dmesg"),
    ],
)
def test_errors_are_translated(error: Exception, expected: type[ServiceError], advice: str) -> None:
    with pytest.raises(ServiceError) as raised, translated("Cannot do it"):
        raise error
    assert type(raised.value) is expected
    assert raised.value.detail.startswith("Cannot do it: ")
    assert advice in raised.value.detail
    assert raised.value.__cause__ is error


def writer_of(index: SegmentIndex) -> sqlite3.Connection:
    writer = index._store._writer
    assert writer is not None
    return writer


@pytest.fixture
def limit_pages(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a store grow to so many pages, or not at all, by whatever connection."""
    connect = store_module.connect

    def limit(index: SegmentIndex, pages: int | None = None) -> None:
        if pages is None:
            (pages,) = writer_of(index).execute("PRAGMA page_count").fetchone()

        def connect_limited(path: Path) -> sqlite3.Connection:
            connection = connect(path)
            connection.execute(f"PRAGMA max_page_count={pages}")
            return connection

        monkeypatch.setattr(store_module, "connect", connect_limited)
        writer_of(index).execute(f"PRAGMA max_page_count={pages}")

    return limit


def test_a_full_store_refuses_and_goes_on_when_there_is_room(
    index: SegmentIndex, open_index: Callable[[], SegmentIndex], limit_pages: Callable[..., None]
) -> None:
    store_segments(index, 1, segment("a"))
    limit_pages(index)
    big = upsert_of(2, segment("b"), segment("c", "long " * 20_000))
    before = index.stats()
    for _ in range(2):
        with pytest.raises(StoreFull, match="Free space"):
            index.apply([big])
        assert list(stored(index)) == [(1, "a")]
        assert index.stats() == before
    limit_pages(index, 1_000_000)
    assert index.apply([big]) == [UpsertResult(stored=2, changed=2)]
    index.close()
    assert set(stored(open_index())) == {(1, "a"), (2, "b"), (2, "c")}


def test_what_fits_is_stored_though_its_group_does_not(
    index: SegmentIndex, limit_pages: Callable[..., None]
) -> None:
    store_segments(index, 1, segment("a"), segment("long", "word " * 3000))
    index.delete_media(1)  # leaves free pages
    limit_pages(index)
    group = [
        upsert_of(1, segment("b")),
        upsert_of(2, segment("c", "long " * 200_000)),
        upsert_of(3, segment("d")),
    ]
    with pytest.raises(StoreFull):
        index.apply(group)
    assert stored(index) == {}
    with GroupCommit(index) as commits, index._writing:
        futures = [commits.submit(operation) for operation in group]
    assert futures[0].result() == futures[2].result() == UpsertResult(stored=1, changed=1)
    assert isinstance(futures[1].exception(), StoreFull)
    assert set(stored(index)) == {(1, "b"), (3, "d")}
    assert index.verify() == []


@pytest.mark.parametrize("refused", [("COMMIT",), ("COMMIT", "ROLLBACK"), ("BEGIN IMMEDIATE",)])
def test_a_commit_that_failed_is_not_applied(
    failing: type[FailingConnection],
    refused: tuple[str, ...],
    open_index: Callable[[], SegmentIndex],
) -> None:
    index = open_index()
    store_segments(index, 1, segment("a"), segment("b"))
    failing.fail_before = refused
    change = upsert_of(1, segment("a", "new"), replace=True)
    for _ in range(2):
        with pytest.raises(StoreUnwritable):
            index.apply([change, upsert_of(2, segment("c"), kind=CLIP)])
        failing.fail_before = ()
        assert set(stored(index)) == {(1, "a"), (1, "b")}
        assert stored(index)[1, "a"].text == "text of a"
        assert stored(index, CLIP) == {}
        failing.fail_before = refused
    failing.fail_before = ()
    assert index.apply([change]) == [UpsertResult(stored=1, changed=1, removed=1)]
    assert {key: each.text for key, each in stored(index).items()} == {(1, "a"): "new"}
    assert index.verify() == []
    index.close()
    assert set(stored(open_index())) == {(1, "a")}


@pytest.mark.parametrize("then", [(), ("ROLLBACK",)])
def test_a_commit_that_failed_but_was_made_is_seen(
    failing: type[FailingConnection],
    then: tuple[str, ...],
    open_index: Callable[[], SegmentIndex],
) -> None:
    index = open_index()
    store_segments(index, 1, segment("a"), segment("b"))
    failing.fail_after, failing.fail_before = ("COMMIT",), then
    with pytest.raises(StoreUnwritable):
        index.apply(
            [
                upsert_of(1, segment("a", "new"), replace=True),
                upsert_of(2, segment("c"), kind=FRAME),
            ]
        )
    failing.fail_after = failing.fail_before = ()
    # Memory says what the store says, whatever the caller was told.
    assert {key: each.text for key, each in stored(index).items()} == {(1, "a"): "new"}
    assert find(index, "new", 1)[0].cosine == 1.0
    assert set(stored(index, FRAME)) == {(2, "c")}
    assert index.verify() == []
    store_segments(index, 3, segment("d"))
    index.close()
    assert set(stored(open_index())) == {(1, "a"), (3, "d")}


def test_memory_that_fell_behind_catches_up(
    index: SegmentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_segments(index, 1, segment("a"), segment("b"))

    def fail(*arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(index._collections[TRANSCRIPT], "change", fail)
        with pytest.raises(MemoryError):
            index.apply([upsert_of(1, segment("c"), replace=True)])
    store_segments(index, 2, segment("d"))
    assert set(stored(index)) == {(1, "c"), (2, "d")}
    assert index.verify() == []


def test_a_foreign_writer_is_named(index: SegmentIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    writer_of(index).execute("PRAGMA busy_timeout=10")
    with closing(sqlite3.connect(index.folder / "store.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnwritable, match="another process uses the store"):
            index.apply([upsert_of(1, segment("a"))])
        other.execute("ROLLBACK")
    assert store_segments(index, 1, segment("a")) == UpsertResult(stored=1, changed=1)


UNTIL_FULL = """
import errno, resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from storage_samples import MODEL, segment, stored, upsert_of, store_segments
from deployments.core.errors import StoreError, StoreFull, StoreUnwritable
from deployments.core.storage.group_commit import GroupCommit
from deployments.core.index.segment_index import SegmentIndex

folder, mode = Path(sys.argv[1]), sys.argv[3]
index = SegmentIndex.open(folder, MODEL)
expected = set()
if mode == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
failures = []
for item in range(300):
    try:
        (outcome,) = index.apply([upsert_of(item, segment("s", f"{item} " * 5000))])
    except StoreError as error:
        outcome = error
    if isinstance(outcome, StoreError):
        failures.append(outcome)
        if len(failures) == 5:
            break
    else:
        expected.add((item, "s"))
    assert set(stored(index)) == expected, item
assert len(failures) == 5 and expected, (failures, expected)
wanted = StoreFull if mode == "full" else StoreUnwritable
assert all(isinstance(each, wanted) for each in failures), failures
if mode == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
else:
    (folder / "ballast").unlink()
store_segments(index, "later", segment("s", "small"))
expected.add(("later", "s"))
assert set(stored(index)) == expected
assert index.verify() == []
index.close()
with SegmentIndex.open(folder, MODEL) as again:
    assert set(stored(again)) == expected
    assert again.verify() == []
print("done", len(expected))
"""


def run_until_full(folder: Path, mode: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            UNTIL_FULL,
            str(folder),
            str(Path(__file__).parent),
            mode,
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("done ")


def test_files_that_may_not_grow(folder: Path) -> None:
    run_until_full(folder, "limit")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    point = tmp_path / "disk"
    point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(point)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("file systems can't be mounted here; test_files_that_may_not_grow ran")
    yield point
    subprocess.run(["umount", str(point)], check=True)


def test_a_disk_that_is_full(small_disk: Path) -> None:
    folder = small_disk / "index"
    folder.mkdir()
    (folder / "ballast").write_bytes(b"x" * 5_000_000)
    run_until_full(folder, "full")


def test_a_read_only_disk(small_disk: Path) -> None:
    folder = small_disk / "index"
    with SegmentIndex.open(folder, MODEL) as index:
        store_segments(index, 1, segment("a"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreUnwritable, match="Read-only"):
        SegmentIndex.open(folder, MODEL)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    with SegmentIndex.open(folder, MODEL) as index:
        assert set(stored(index)) == {(1, "a")}


PROTECTED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from storage_samples import MODEL, segment, stored, upsert_of
from deployments.core.errors import StoreUnwritable
from deployments.core.index.segment_index import SegmentIndex

folder, store = Path(sys.argv[1]), Path(sys.argv[1]) / "store.sqlite3"
with SegmentIndex.open(folder, MODEL) as index:
    index.apply([upsert_of(1, segment("a"))])
owner, other = os.geteuid(), os.geteuid() or 65534  # permissions don't hold root back
for path in (folder, *folder.iterdir()):
    os.chown(path, other, -1)
folder.chmod(0o555)
(folder / ".lock").chmod(0o444)
os.seteuid(other)
try:
    SegmentIndex.open(folder, MODEL)
except StoreUnwritable as error:
    assert "Permission denied" in error.detail and "permissions" in error.detail, error
else:
    raise AssertionError("a folder that can't be written to was opened")
folder.chmod(0o755)
(folder / ".lock").chmod(0o644)
store.chmod(0o444)
with SegmentIndex.open(folder, MODEL) as index:
    for _ in range(2):
        (outcome,) = index.apply([upsert_of(2, segment("b"))])
        assert isinstance(outcome, StoreUnwritable) and "permissions" in outcome.detail, outcome
        assert set(stored(index)) == {(1, "a")}
    for path in folder.iterdir():
        path.chmod(0o644)
    (outcome,) = index.apply([upsert_of(2, segment("b"))])
    assert not isinstance(outcome, Exception), outcome
    assert set(stored(index)) == {(1, "a"), (2, "b")}
    assert index.verify() == []
print("done")
"""


def test_a_folder_or_a_store_without_the_permission_to_write() -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        command = [sys.executable, "-W", "error", "-c", PROTECTED, f"{place}/index"]
        done = subprocess.run(
            [*command, str(Path(__file__).parent)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "done\n"
