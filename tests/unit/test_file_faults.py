"""Every step of a write below SQLite fails once, or from then on: nothing acknowledged is lost."""

import itertools
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Barrier

import pytest
from faulty_files import CHANGES, Fault, FaultyFiles, install
from lost_power import Platter, PlatterDisk
from storage_samples import CLIP, FRAME, MODEL, segment, upsert_of
from write_models import Contents, Operation, Writes, after, contents

from deployments.core.errors import ServiceError, StoreError, StoreFull, StoreUnwritable
from deployments.core.index.segment_index import Outcome, SegmentIndex
from deployments.core.segments import DeleteMedia
from deployments.core.storage import store as store_module

FULL = frozenset({"write", "sync", "shm"})
"""What fails where there is no room. Files that exist can be opened and cut short."""
ANY = CHANGES | {"read"}

FAULTS = [
    pytest.param({"calls": FULL, "full": True, "taken": 0.5}, id="full for a moment"),
    pytest.param({"calls": FULL, "full": True, "lasting": True}, id="full"),
    pytest.param({"taken": 0.9}, id="unwritable once"),
    pytest.param({"lasting": True, "taken": 0.3}, id="unwritable"),
    pytest.param({"calls": frozenset({"write"}), "taken": 1.0}, id="written and refused"),
    pytest.param({"calls": frozenset({"sync"})}, id="not synced once"),
    pytest.param({"calls": frozenset({"sync"}), "lasting": True}, id="not synced"),
    pytest.param({"calls": frozenset({"read"})}, id="unreadable once"),
    pytest.param({"calls": ANY, "lasting": True}, id="dead"),
]


@pytest.fixture
def small_store(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets sizes at which a few segments are enough for all that happens to large stores."""
    connect = store_module.connect

    def limit(autocheckpoint_pages: int = 12, log_bytes: int = 200_000) -> None:
        def connect_small(path: Path) -> sqlite3.Connection:
            connection = connect(path)
            connection.execute(f"PRAGMA wal_autocheckpoint={autocheckpoint_pages}")
            connection.execute("PRAGMA cache_size=4")  # long writes spill before they commit
            return connection

        monkeypatch.setattr(store_module, "connect", connect_small)
        monkeypatch.setattr(store_module, "_LOG_BYTES", log_bytes)

    limit()
    return limit


@pytest.fixture
def files(memory_folder: Path, small_store: Callable[..., None]) -> Iterator[FaultyFiles]:
    with install(memory_folder / "index") as files:
        yield files


class Witness:
    """Writes to an index under faults, and compares it with what it should hold."""

    def __init__(self, files: FaultyFiles, index: SegmentIndex, seed: object = 0) -> None:
        self._files = files
        self._platter = files.recorder
        self.index = index
        self.expected = contents(index)
        self.possible = [self.expected]
        """What may be on the disk: also what wasn't acknowledged since the last write that was."""
        self.images = 0
        self.refusals: set[type[ServiceError]] = set()

    def write(self, group: list[Operation]) -> bool:
        """Carry out a group; returns whether all of it was acknowledged."""
        before = self.expected
        outcomes: list[Outcome]
        try:
            outcomes = self.index.apply(group)
        except StoreError as error:
            outcomes = [error] * len(group)
        done = []
        for operation, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, ServiceError):
                assert isinstance(outcome, StoreUnwritable), repr(outcome)
                self.refusals.add(type(outcome))
            else:
                done.append(operation)
        self.expected = after(before, done)
        if done:
            self.possible = [self.expected]
        else:
            self.possible += [
                after(before, some)
                for count in range(1, len(group) + 1)
                for some in itertools.combinations(group, count)
            ]
        return len(done) == len(group)

    def look(self) -> None:
        """Memory, texts and store have to agree with what was acknowledged."""
        assert contents(self.index) == self.expected
        assert self.index.verify() == []

    def look_after_a_kill(self) -> None:
        """Open what a process would find that comes after this one."""
        copy = self._files.folder.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._files.folder, copy, ignore=shutil.ignore_patterns("*-shm", ".lock"))
        self._look_at(copy)

    def look_after_a_power_failure(self) -> None:
        """Open what may be left on the disk."""
        assert isinstance(self._platter, Platter)
        self._look_at(self._platter.image(self._files.folder, self._files.folder.with_name("copy")))

    def _look_at(self, folder: Path) -> None:
        with SegmentIndex.open(folder, MODEL) as index:
            assert contents(index) in self.possible
            assert index.verify() == []
        self.images += 1


@contextmanager
def witnessed(files: FaultyFiles, seed: object) -> Iterator[Witness]:
    """A witness of a new index, which at the end is closed and opened once more."""
    platter = files.recorder = Platter(seed)
    with SegmentIndex.open(files.folder, MODEL, disk=PlatterDisk(platter)) as index:
        witness = Witness(files, index)
        yield witness
        witness.look()
    with SegmentIndex.open(files.folder, MODEL) as index:
        assert contents(index) == witness.expected
        assert index.verify() == []


def forget_pages(index: SegmentIndex) -> None:
    """Let what is written or searched next be read from the files."""
    for connection in (index._store._writer, *index._store._idle):
        assert connection is not None
        connection.execute("PRAGMA shrink_memory")


def shapes(number: int) -> dict[str, list[Operation]]:
    """Groups that change something whatever is stored, each another one for every number."""
    several = [segment(i, f"{number} {i}") for i in range(5)]
    return {
        "one": [upsert_of(1, segment("a", f"a {number}"))],
        "replace": [upsert_of(2, *several[number % 5 :], replace=True, kind=FRAME)],
        "long": [upsert_of(3, segment("long", f"long {number} " * 3000), *several, kind=CLIP)],
        "mixed": [
            upsert_of(4, *several),
            DeleteMedia(3),
            upsert_of(4, segment("b", f"b {number}"), kind=FRAME),
        ],
    }


SIZES = {
    "one": {"autocheckpoint_pages": 1},
    "replace": {"autocheckpoint_pages": 0, "log_bytes": 1},
}
"""By shape: into the store's main file after each write; the log cut off after each write."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("shape", list(shapes(0)))
def test_a_write_that_fails_at_any_step(
    files: FaultyFiles, small_store: Callable[..., None], fault: dict, shape: str
) -> None:
    small_store(**SIZES.get(shape, {}))
    refused = 0
    with witnessed(files, shape) as witness:
        numbers = itertools.count()
        for step in itertools.count(1):
            # Others before it, so that not every step begins at the same place of the log.
            for _ in range(step % 3):
                assert witness.write(shapes(next(numbers))["mixed"])
            forget_pages(witness.index)
            files.arm(Fault(step, **fault))
            acknowledged = witness.write(shapes(next(numbers))[shape])
            injected = list(files.injected)
            if "read" not in fault.get("calls", ()):
                witness.look()
            files.disarm()
            witness.look()
            if step % 2:
                witness.look_after_a_kill()
            witness.look_after_a_power_failure()
            if not injected:
                break
            refused += not acknowledged
            assert witness.write(shapes(next(numbers))[shape])
            witness.look()
    assert acknowledged
    assert refused > 0
    if fault.get("full") and not fault.get("lasting"):
        assert StoreFull in witness.refusals
    print(f"{step - 1} steps, {refused} writes refused, {witness.images} images")


def test_searches_that_need_another_connection_while_the_disk_is_full(files: FaultyFiles) -> None:
    with witnessed(files, 0) as witness, ThreadPoolExecutor(8) as threads:
        assert witness.write(shapes(1)["long"])
        files.arm(Fault(1, calls=FULL, full=True, lasting=True))
        assert not witness.write(shapes(2)["long"])
        together = Barrier(8)

        def search(_: int) -> Contents:
            with witness.index._store.reading():
                together.wait(30)
                return contents(witness.index)

        assert list(threads.map(search, range(8))) == [witness.expected] * 8
        files.disarm()
        assert witness.write(shapes(3)["long"])


def test_what_was_refused_does_not_come_back_after_an_answer_that_it_is_not_there(
    files: FaultyFiles,
) -> None:
    with witnessed(files, 0) as witness:
        assert witness.write([upsert_of(1, segment("a"))])
        files.arm(Fault(1, calls=frozenset({"sync"})))
        assert not witness.write([upsert_of(2, segment("refused"))])
        assert files.injected == ["sync store.sqlite3-wal"]
        files.disarm()
        witness.look_after_a_kill()  # here it may be there
        assert witness.index.delete_media(2) == 0
        witness.possible = [witness.expected]
        witness.look_after_a_kill()
        for _ in range(10):
            witness.look_after_a_power_failure()
        assert contents(witness.index) == witness.expected


STARTS = ("full", "unwritable once", "written and refused", "not synced", "dead")


@pytest.mark.parametrize("fault", [each for each in FAULTS if each.id in STARTS])
def test_a_start_that_fails_at_any_step(files: FaultyFiles, fault: dict) -> None:
    images = 0
    for step in itertools.count(1):
        shutil.rmtree(files.folder, ignore_errors=True)
        platter = files.recorder = Platter(step)
        files.arm(Fault(step, **fault))
        with (
            suppress(StoreUnwritable),
            SegmentIndex.open(files.folder, MODEL, disk=PlatterDisk(platter)) as index,
        ):
            assert contents(index) == {}
        if not files.injected:
            break
        files.disarm()
        for _ in range(3):
            place = platter.image(files.folder, files.folder.with_name("copy"))
            with SegmentIndex.open(place, MODEL) as index:
                assert contents(index) == {}
            images += 1
        with SegmentIndex.open(files.folder, MODEL) as index:
            index.apply(shapes(0)["one"])
            assert index.verify() == []
        with SegmentIndex.open(files.folder, MODEL) as index:
            assert contents(index) == after({}, shapes(0)["one"])
    print(f"{step - 1} steps, {images} images")


@pytest.mark.parametrize("fault", [each for each in FAULTS if each.id in STARTS])
def test_a_start_after_a_kill_that_fails_at_any_step(files: FaultyFiles, fault: dict) -> None:
    left = files.folder.with_name("left")
    with SegmentIndex.open(files.folder, MODEL) as index:
        witness = Witness(files, index)
        for number in range(3):
            assert witness.write(shapes(number)["mixed"])
        shutil.copytree(files.folder, left, ignore=shutil.ignore_patterns("*-shm", ".lock"))
    assert (left / "store.sqlite3-wal").stat().st_size > 0
    refused = 0
    for step in itertools.count(1):
        shutil.rmtree(files.folder)
        shutil.copytree(left, files.folder)
        files.arm(Fault(step, **fault))
        try:
            with SegmentIndex.open(files.folder, MODEL) as index:
                assert contents(index) == witness.expected
        except StoreUnwritable:
            refused += 1
        injected = list(files.injected)
        files.disarm()
        witness.look_after_a_kill()
        with SegmentIndex.open(files.folder, MODEL) as index:
            assert contents(index) == witness.expected
            assert index.verify() == []
        if not injected:
            break
    assert step > 2
    print(f"{step - 1} steps, {refused} starts refused")


def test_an_end_that_fails_at_any_step(files: FaultyFiles) -> None:
    for step in itertools.count(1):
        platter = files.recorder = Platter(step)
        shutil.rmtree(files.folder, ignore_errors=True)
        index = SegmentIndex.open(files.folder, MODEL, disk=PlatterDisk(platter))
        witness = Witness(files, index)
        for number in range(3):
            assert witness.write(shapes(number)["mixed"])
        files.arm(Fault(step, calls=ANY, lasting=step % 2 == 0))
        index.close()
        injected = list(files.injected)
        files.disarm()
        for _ in range(4):
            witness.look_after_a_power_failure()
        with SegmentIndex.open(files.folder, MODEL) as index:
            assert contents(index) == witness.expected
            assert index.verify() == []
        if not injected:
            break
    assert step > 10


@pytest.mark.parametrize("seed", range(6))
def test_a_power_failure_at_a_random_moment(files: FaultyFiles, seed: int) -> None:
    chance, writes = random.Random(seed), Writes(seed)
    refused = 0
    with witnessed(files, seed) as witness:
        for _ in range(60):
            if chance.random() < 0.6:
                fault = chance.choice(FAULTS).values[0]
                step = int(chance.paretovariate(0.5))
                files.arm(Fault(min(step, 200), **fault))
            refused += not witness.write(writes.group())
            files.disarm()
            for _ in range(3):
                witness.look_after_a_power_failure()
            witness.look()
    print(f"{refused} of 60 writes refused, {witness.images} images")
