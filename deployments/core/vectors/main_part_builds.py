"""Main parts of one folder's indices, built in the background and swapped in when complete."""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from deployments.core.durable_files import Disk
from deployments.core.segments import EmbeddingType, IndexState, IndexType
from deployments.core.thread_priority import lower_priority
from deployments.core.vectors import gpu, main_part_build, main_part_files, recall
from deployments.core.vectors.checkpoint import Stamp
from deployments.core.vectors.collection import Collection, Snapshot
from deployments.core.vectors.faiss_threads import one_thread
from deployments.core.vectors.index_policy import IndexPolicy, Plan, deleted_main_rows
from deployments.core.vectors.main_part import MainPart
from deployments.core.vectors.published_state import State

logger = logging.getLogger(__name__)

_WORTH_KEEPING_S = 5.0
_KEEP_AGAIN_GROWTH = 1.2
_RETRY_GROWTH = 1.1


Name = tuple[int, int]
"""Tells main parts of one type apart without keeping old ones in memory."""


class GivenUp(BaseException):
    """The index is being closed. Not an Exception, so that nothing takes it for a failure."""


class MainPartBuilds:
    """Compares each published state with the policy, and builds what is missing.

    A thread lives while there is something to build. It has a low priority and makes Faiss use
    no other thread, so searches keep at least the other cores, and most of this one.
    """

    def __init__(
        self,
        folder: Path,
        store_id: str,
        policy: IndexPolicy,
        current: Callable[[], State],
        adopt: Callable[[EmbeddingType, MainPart | None, str], bool],
        disk: Disk,
    ) -> None:
        """`adopt` puts a main part into the state that `current` returns from then on, unless its
        vectors aren't of the model with this fingerprint any more; it returns whether it did."""
        self._folder = folder
        self._store_id = store_id
        self._policy = policy
        self._current = current
        self._adopt = adopt
        self._disk = _StoppableDisk(disk, self._go_on)
        self._reading = disk
        self._changing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._noticed = False
        self._closing = threading.Event()
        self._progress: dict[EmbeddingType, float] = {}
        self._recall: dict[EmbeddingType, dict[Name, float | None]] = {}
        self._kept_rows: dict[EmbeddingType, int] = {}
        self._failed_rows: dict[EmbeddingType, int] = {}

    def load(
        self, collections: Mapping[EmbeddingType, Collection], commit_id: int, last_sequence: int
    ) -> None:
        """Give recovered collections the main parts that were kept and fit them."""
        for kind, collection in collections.items():
            wanted = self._policy.wanted_type(kind, collection.snapshot)
            if wanted is IndexType.FLAT:
                continue
            expected = Stamp(
                "",
                collection.snapshot.fingerprint,
                collection.snapshot.vectors.shape[1],
                0,
                last_sequence,
                self._store_id,
                commit_id,
            )
            main = main_part_files.load(
                self._folder, kind, wanted, expected, collection.snapshot, self._reading
            )
            if main is not None:
                collection.adopt(main)
                self._kept_rows[kind] = len(main)

    def notice(self) -> None:
        """Look at the present state soon, in the background; returns at once."""
        if self._closing.is_set() or not (self._next_plan() or self._next_unmeasured()):
            return
        with self._changing:
            self._noticed = True
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name="main-part", daemon=True)
                self._thread.start()

    def states(self) -> dict[EmbeddingType, IndexState]:
        """How each type's rows are searched."""
        return {kind: self._state(kind) for kind in self._current().snapshots}

    def wait(self, timeout_s: float) -> bool:
        """Wait until nothing is being built; whether that came in time."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def close(self) -> None:
        """Give up what is being built. What was adopted stays."""
        with self._changing:
            self._closing.set()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _state(self, kind: EmbeddingType) -> IndexState:
        snapshot, progress = self._current().snapshots[kind], self._progress.get(kind)
        main = snapshot.main
        return IndexState(
            configured=self._policy.configured(kind),
            type=IndexType.FLAT if main is None else main.type,
            rows=len(snapshot),
            deleted_rows=max(len(snapshot.dead), deleted_main_rows(snapshot)),
            main_rows=0 if main is None else len(main),
            building=progress is not None,
            build_progress=progress,
            recall_at_10=None if main is None else self._recall.get(kind, {}).get(_name(main)),
        )

    def _next_plan(self) -> tuple[EmbeddingType, Plan, State] | None:
        state = self._current()
        for kind, snapshot in state.snapshots.items():
            plan = self._policy.plan(kind, snapshot)
            # One that failed is tried again when there is more to be won.
            if plan is not None and len(snapshot) >= self._failed_rows.get(kind, 0):
                return kind, plan, state
        return None

    def _next_unmeasured(self) -> EmbeddingType | None:
        for kind, snapshot in self._current().snapshots.items():
            main = snapshot.main
            if main is not None and _name(main) not in self._recall.get(kind, {}):
                return kind
        return None

    def _run(self) -> None:
        lower_priority()
        with suppress(GivenUp), one_thread():
            while True:
                with self._changing:
                    if not self._noticed:
                        self._thread = None
                        return
                    self._noticed = False
                while self._work():
                    pass

    def _work(self) -> bool:
        """Do what is most urgent; False if nothing was left."""
        if (planned := self._next_plan()) is not None:
            kind, plan, state = planned
            rows = len(state.snapshots[kind])
            try:
                self._carry_out(kind, plan, state)
            except Exception:
                self._failed_rows[kind] = int(rows * _RETRY_GROWTH) + 1
                logger.exception(
                    "The %s index for %d %s rows could not be built; searches go on without it.",
                    plan.type,
                    rows,
                    kind,
                )
            return True
        if (unmeasured := self._next_unmeasured()) is not None:
            self._measure(unmeasured)
            return True
        return False

    def _carry_out(self, kind: EmbeddingType, plan: Plan, state: State) -> None:
        snapshot = state.snapshots[kind]
        if plan.type is IndexType.FLAT and not gpu.takes(plan.type):
            self._adopt(kind, None, snapshot.fingerprint)
            return
        main = self._build(kind, plan, state)
        self._failed_rows.pop(kind, None)
        if self._adopt(kind, main, snapshot.fingerprint):
            logger.info("Built the %s index for %d %s rows.", main.type, len(main), kind)
            self._keep(kind, plan, main, snapshot)

    def _measure(self, kind: EmbeddingType) -> None:
        snapshot = self._current().snapshots[kind]
        if snapshot.main is not None:
            share = recall.recall_at_10(snapshot, self._go_on)
            self._recall[kind] = {_name(snapshot.main): share}

    def _build(self, kind: EmbeddingType, plan: Plan, state: State) -> MainPart:
        def progress(share: float) -> None:
            self._go_on(share)
            self._progress[kind] = share

        try:
            progress(0.0)
            return main_part_build.build(
                plan, state.snapshots[kind], state.commit_id, state.last_sequence, progress
            )
        finally:
            self._progress.pop(kind, None)

    def _keep(self, kind: EmbeddingType, plan: Plan, main: MainPart, of: Snapshot) -> None:
        grown = len(main) > _KEEP_AGAIN_GROWTH * self._kept_rows.get(kind, 0)
        quick = main.type is IndexType.FLAT or main.build_s < _WORTH_KEEPING_S
        if quick or (plan.extends and not grown):
            return
        try:
            main_part_files.write(
                self._folder,
                kind,
                main,
                of.fingerprint,
                self._store_id,
                self._disk,
            )
        except OSError as error:
            logger.warning("The %s index can't be kept for the next start: %s", kind, error)
        else:
            self._kept_rows[kind] = len(main)

    def _go_on(self, _: float = 0.0) -> None:
        if self._closing.is_set():
            raise GivenUp


class _StoppableDisk(Disk):
    """Another disk whose writes end when an index is closed."""

    def __init__(self, disk: Disk, go_on: Callable[[], None]) -> None:
        self._inner = disk
        self._go_on = go_on

    def write(self, descriptor: int, data: memoryview) -> int:
        self._go_on()
        return self._inner.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._inner.sync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        self._inner.replace(source, target)


def _name(main: MainPart) -> Name:
    return main.commit_id, len(main)
