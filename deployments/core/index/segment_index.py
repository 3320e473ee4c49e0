"""One index folder: its store, its vectors in memory and its checkpoints, behind one door."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TypeVar

import numpy as np

from deployments.core.damage import DamageRecord, noting_damage
from deployments.core.durable_files import Disk, remove_temporary_files
from deployments.core.errors import NotReady, ServiceError, StoreError
from deployments.core.index import background_check, folder_check, recovery
from deployments.core.index.index_checkpoints import IndexCheckpoints
from deployments.core.index.index_condition import IndexCondition
from deployments.core.index.index_reads import IndexReads
from deployments.core.pace import Pace
from deployments.core.search.one_commit import Snapshots, at_one_commit
from deployments.core.segments import (
    DeleteMedia,
    EmbeddingType,
    Hit,
    Id,
    IndexStats,
    ModelIdentity,
    Models,
    Queries,
    Search,
    models_by_type,
)
from deployments.core.storage import store_check
from deployments.core.storage.commit_mark import CommitMark
from deployments.core.storage.folder_lock import FolderLock
from deployments.core.storage.operations import Operation, Outcome, carry_out
from deployments.core.storage.segment_writes import Changes
from deployments.core.storage.store import Store
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage.store_writer import StoreWriter
from deployments.core.storage_errors import translated
from deployments.core.vectors.collection import Collections, empty_collections
from deployments.core.vectors.index_policy import IndexPolicy
from deployments.core.vectors.main_part import MainPart
from deployments.core.vectors.main_part_builds import MainPartBuilds
from deployments.core.vectors.published_state import PublishedState, State

logger = logging.getLogger(__name__)

T = TypeVar("T")


class SegmentIndex:
    """The segments and vectors of one folder. Any number of threads may search while one writes.

    After a write has returned it is durable and every search sees it; a search sees each write
    whole or not at all, its texts included.
    """

    def __init__(
        self,
        folder: Path,
        lock: FolderLock,
        store: Store,
        disk: Disk,
        policy: IndexPolicy,
    ) -> None:
        """Take over a held lock and an open store; use `open` instead."""
        self.folder = folder
        self.models = store.models
        self._lock = lock
        self._store = store
        self._mark = CommitMark(folder, store.store_id)
        self._checkpoints = IndexCheckpoints(folder, store.store_id, disk)
        self._writing = threading.Lock()
        self._published = PublishedState()
        self._collections = empty_collections(store.models)
        self.reads = IndexReads(self)
        self._builds = MainPartBuilds(
            folder,
            store.store_id,
            policy,
            lambda: self._published.current,
            self._adopt,
            disk,
        )
        self._rebuilt: dict[EmbeddingType, str] = {}
        self.damage = DamageRecord()
        self._recovery_s = 0.0
        self._behind = False
        self._closed = False

    @classmethod
    def open(
        cls,
        folder: Path | str,
        models: ModelIdentity | Models,
        lock: FolderLock | None = None,
        disk: Disk | None = None,
        policy: IndexPolicy | None = None,
        accept_former: bool = False,
    ) -> "SegmentIndex":
        """Open a folder's index, or start an empty one in a new folder.

        `models` are those of the types' vectors; one stands for all. With `accept_former`, vectors
        that were exchanged for those of another model are accepted too; `models` says which are
        there. Without a `policy` every search scans, and nothing is built in the background.

        `lock` may be held already or not; the index releases it when closed, or when
        it can't be opened. Raises FolderLocked
        if another process writes here, LegacyFolder for the files of the old service,
        StoreMismatch for another model or a newer version, StoreDamaged and StoreUnwritable.
        In none of these cases is anything but the lock file written.
        """
        started = monotonic()
        folder, models = Path(folder), models_by_type(models)
        disk = disk or Disk()
        with ExitStack() as opened:
            held = opened.enter_context(lock or FolderLock(folder))
            folder_check.refuse_without_store(folder, disk)
            folder_check.warn_of_network_file_system(folder)
            store = Store.open(folder, models, disk, accept_former=accept_former)
            opened.callback(store.close)
            index = cls(folder, held, store, disk, policy or IndexPolicy())
            opened.callback(index._mark.close)
            opened.callback(index._builds.close)
            index._recover()
            with translated(f"Cannot tidy {folder}"):
                remove_temporary_files(folder)
            opened.pop_all()
        index._recovery_s = monotonic() - started
        return index

    def _recover(self) -> None:
        with self._store.reading() as reader:
            commit_id, last_sequence = reader.commit_id(), reader.last_sequence()
            self._mark.require(commit_id)
            self._rebuilt = self._checkpoints.recover(reader, self._collections)
        self._builds.load(self._collections, commit_id, last_sequence)
        self._publish(commit_id, last_sequence)

    def _publish(self, commit_id: int, last_sequence: int) -> None:
        snapshots = {kind: each.snapshot for kind, each in self._collections.items()}
        self._published.publish(State(commit_id, last_sequence, snapshots))
        self._mark.record(commit_id)
        self._builds.notice()

    def _adopt(self, kind: EmbeddingType, main: MainPart | None, fingerprint: str) -> bool:
        with self._writing:
            if self.models[kind].fingerprint != fingerprint:
                return False
            self._collections[kind].adopt(main)
            # Into the published state and not from the collection: after a failed commit that
            # may be of another moment.
            state = self._published.current
            snapshot = replace(state.snapshots[kind], main=main)
            snapshots = {**state.snapshots, kind: snapshot}
            self._published.publish(replace(state, snapshots=snapshots))
            return True

    def _require_open(self) -> None:
        if self._closed:
            raise NotReady("The index is closed.")

    @noting_damage
    def apply(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Carry out operations in order, in one durable transaction.

        Each sees the effects of those before it. One that is wrong changes nothing and has its
        error in its place, most often InvalidInput. Returns UpsertResult for an Upsert and the
        number of removed segments for a DeleteMedia. Raises StoreError if the transaction could
        not be made durable; nothing of it is applied then. Raises NotReady after close().
        """
        outcomes: list[Outcome] = []
        changes: Changes = {}
        with self._changing():
            with self._store.transaction() as writer:
                for operation in operations:
                    outcomes.append(carry_out(writer, operation, self.models, changes))
                changed = writer.changed
                commit_id, last_sequence = writer.commit_id() + 1, writer.last_sequence()
            if changed:
                self._take_in(changes, commit_id, last_sequence)
        return outcomes

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let nobody else change store and collections, and bring them together if it fails."""
        with self._writing:
            self._require_open()
            self.damage.refuse_writes()
            if self._behind:
                self._catch_up()
            try:
                yield
            except BaseException:
                # A commit that failed may have reached the disk all the same, and one that
                # didn't may not have reached the collections: the store says which.
                self._behind = True
                with suppress(StoreError):
                    self._catch_up()
                raise

    def _catch_up(self) -> None:
        with self._store.reading() as reader:
            self._take_over(reader.models(), {})
            commit_id, last_sequence = reader.commit_id(), reader.last_sequence()
            differing = {
                kind: recovery.catch_up(reader, kind, collection, self.models[kind].dimension)
                for kind, collection in self._collections.items()
                if commit_id != self._published.current.commit_id
            }
        self._publish(commit_id, last_sequence)
        for kind, rows in differing.items():
            self._checkpoints.schedule.changed(kind, rows)
        self._behind = False

    @noting_damage
    def exchange(self, work: Callable[[StoreWriter], Collections]) -> None:
        """Let vectors of other models take the place of these, in one durable transaction.

        `work` exchanges them in the store and returns the collections of the types whose model is
        another one then, with all their rows. Raises what it raises, and as `apply`; the vectors
        that were there are there still then.
        """
        with self._changing():
            with self._store.transaction() as writer:
                collections = work(writer)
                models = writer.models()
                commit_id, last_sequence = writer.commit_id() + 1, writer.last_sequence()
            self._take_over(models, collections)
            self._publish(commit_id, last_sequence)
            for kind, collection in collections.items():
                self._checkpoints.schedule.changed(kind, len(collection.snapshot))

    def _take_over(self, models: Models, collections: Collections) -> None:
        """Search in vectors of these models; where no collection of them is given, in none yet."""
        models = {
            kind: before if (before := self.models[kind]).makes_the_same_as(model) else model
            for kind, model in models.items()
        }
        made = empty_collections(models)
        for kind, model in models.items():
            if model != self.models[kind]:
                self._collections[kind] = collections.get(kind, made[kind])
        self.models = models

    def _take_in(self, changes: Changes, commit_id: int, last_sequence: int) -> None:
        changed_rows = {}
        for kind, change in changes.items():
            removed, added, vectors = change.arrays(self.models[kind].dimension)
            if len(removed) or len(added):
                self._collections[kind].change(removed, added, vectors)
                changed_rows[kind] = len(removed) + len(added)
        self._publish(commit_id, last_sequence)
        # After publishing, so that a checkpoint never counts rows that its snapshot lacks.
        for kind, rows in changed_rows.items():
            self._checkpoints.schedule.changed(kind, rows)

    def delete_media(self, media_item_id: Id, embedding_type: EmbeddingType | None = None) -> int:
        """Remove a media item's segments, of one type or of all; returns how many there were.

        Raises InvalidInput for an id that is neither integer nor string, else as apply().
        """
        (outcome,) = self.apply([DeleteMedia(media_item_id, embedding_type)])
        if isinstance(outcome, ServiceError):
            raise outcome
        assert isinstance(outcome, int)
        return outcome

    @noting_damage
    def read(self, work: Callable[[StoreReader, Snapshots], T]) -> T:
        """What `work` returns for the store and the vectors of the same commit.

        It may be called several times. Raises StoreError, NotReady, and what `work` raises.
        """
        self._require_open()
        return at_one_commit(
            self._store, self._published, lambda reader, state: work(reader, state.snapshots)
        )

    def search(self, searches: Sequence[Search], queries: Queries) -> list[list[Hit]]:
        """The hits of each answer; see IndexReads.answer."""
        return [answer.hits for answer in self.reads.answer(searches, queries)]

    def stats(self) -> IndexStats:
        """Models and rows by type, what was rebuilt or is damaged, and how each is searched."""
        state = self._published.current
        return IndexStats(
            self.models,
            {kind: len(snapshot) for kind, snapshot in state.snapshots.items()},
            state.last_sequence,
            dict(self._rebuilt),
            damage=self.damage.current,
            indices=self._builds.states(),
        )

    def condition(self) -> IndexCondition:
        """What to watch; costs next to nothing."""
        state = self._published.current
        return IndexCondition(
            {kind: len(snapshot) for kind, snapshot in state.snapshots.items()},
            state.commit_id,
            state.last_sequence,
            self._recovery_s,
            dict(self._checkpoints.flaws),
            dict(self._checkpoints.held),
            self.damage.current,
        )

    def wait_for_builds(self, timeout_s: float) -> bool:
        """Wait until nothing is built in the background; whether that came in time."""
        return self._builds.wait(timeout_s)

    def checkpoint_due(self) -> bool:
        """Whether enough has changed, or been quiet for long enough, to write checkpoints."""
        return self._checkpoints.schedule.due(self.stats().vectors)

    def checkpoint(self, force: bool = False) -> None:
        """Write the checkpoints of the types that changed, or of all; blocks no one else.

        Raises StoreUnwritable or StoreFull; the old checkpoint is then still there.
        """
        self._checkpoints.write(lambda: self._published.current, force=force)

    def verify(self) -> list[str]:
        """What is wrong with the store or differs from it in memory; reads everything."""

        def problems(reader: StoreReader, state: State) -> list[str]:
            return [
                *store_check.problems(reader, self.models),
                *(
                    f"The {kind} index in memory has other rows than the store."
                    for kind, snapshot in state.snapshots.items()
                    if not np.array_equal(snapshot.live_sequences(), reader.sequences(kind))
                ),
            ]

        return at_one_commit(self._store, self._published, problems)

    def check(self, pace: Pace) -> None:
        """Read the whole store at a pace; damage that is found is in `damage` afterwards.

        Raises Stopped, StoreError if the store couldn't be read for another reason, NotReady.
        """
        found = background_check.examine(self._store, self._published, pace)
        if found.problems:
            self.damage.found(found.problems, found.damaged_rows)

    def close(self) -> None:
        """Write checkpoints of what changed, close the store and release the lock.

        A checkpoint that can't be written is only logged: the store has everything.
        """
        self._builds.close()  # it may wait for the lock
        with self._writing:
            if self._closed:
                return
            self._closed = True
            try:
                self._checkpoints.write(lambda: self._published.current, last=True)
            except StoreError as error:
                logger.warning("No checkpoint at the end: %s", error)
            finally:
                self._store.close()
                self._mark.close()
                self._lock.release()

    def __enter__(self) -> "SegmentIndex":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
