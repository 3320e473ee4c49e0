"""The folder of the Index deployment: opened as soon as it can be, watched, and closed."""

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from deployments.core.configured_models import read_models
from deployments.core.errors import FolderLocked, NotReady, ServiceError, StoreDamaged
from deployments.core.folders.salvaged_index import SalvagedIndex
from deployments.core.index.background_check import BackgroundCheck
from deployments.core.index.folder_check import folder_state
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.settings import Settings
from deployments.core.storage.folder_lock import FolderLock
from deployments.core.storage.group_commit import GroupCommit
from deployments.core.vectors.index_policy import IndexPolicy
from deployments.index_migrations import Encoding, IndexMigrations, warn_of_other_models
from deployments.metrics import IndexMetrics, Publisher

logger = logging.getLogger(__name__)

LOCK_POLL_S = 0.2
LOCK_LOG_S = 10.0
REPAIR_POLL_S = 1.0


class IndexFolder:
    """One folder, with everything that works on it while it is open.

    While another process holds its lock, or its store is damaged, what it has can't be asked for;
    it is opened as soon as that is over.
    """

    def __init__(self, settings: Settings, encoding: Encoding, metrics: IndexMetrics) -> None:
        """Raises a ServiceError if the folder can't be opened for another reason."""
        self._settings = settings
        self._encoding = encoding
        self._metrics = metrics
        self._models = read_models(settings.models(), settings.embedding_precision)
        self._lock = FolderLock(settings.faiss_index_dir)
        self._segments: SegmentIndex | SalvagedIndex | None = None
        self._writer: GroupCommit | None = None
        self._migrations: IndexMigrations | None = None
        self._check: BackgroundCheck | None = None
        self._publisher: Publisher | None = None
        self._tried: frozenset[Any] = frozenset()
        self._closing = threading.Event()
        self.failure: ServiceError | None = None
        """Why a folder that was waited for couldn't be opened."""
        if not self._lock.try_acquire():
            self._in_thread(self._wait_for_lock)
        elif not self._open_if_whole():
            self._in_thread(self._wait_for_repair)

    @property
    def segments(self) -> SegmentIndex | SalvagedIndex:
        """What is searched. Raises FolderLocked, StoreDamaged, NotReady, and why it didn't open."""
        if self._segments is None:
            raise self._unopened()
        return self._segments

    @property
    def writer(self) -> GroupCommit:
        """What takes writes; raises as `segments`."""
        if self._writer is None:
            raise self._unopened()
        return self._writer

    @property
    def migrations(self) -> IndexMigrations | None:
        """What changes the model, None if a damaged store is only searched; else as `segments`."""
        if self._segments is None or self._closing.is_set():
            raise self._unopened()
        return self._migrations

    def close(self) -> None:
        """Write what is queued, save checkpoints, release the folder. Safe to call twice."""
        self._closing.set()
        for thread in (self._check, self._publisher, self._migrations):
            if thread is not None:
                thread.close()
        self._check = self._publisher = self._migrations = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._segments is not None:
            self._segments.close()
            self._segments = None
            logger.info("Closed %s", self._settings.faiss_index_dir)
        self._lock.release()

    def _open(self) -> None:
        started = monotonic()
        try:
            segments = self._open_folder()
        except ServiceError:
            self._lock.release()
            raise
        writer = GroupCommit(segments)
        migrations = None
        if isinstance(segments, SegmentIndex):
            migrations = IndexMigrations(self._settings, segments, writer, self._encoding)
            warn_of_other_models(self._models, segments.models)
        # Last `segments`, which calls look for first.
        self._migrations, self._writer, self._segments = migrations, writer, segments
        self._publisher = Publisher(
            lambda: self._metrics.publish(
                segments.condition(),
                writer.checkpoint_failures,
                None if migrations is None else migrations.status(),
            )
        )
        if self._settings.embeddings_check_interval_s:
            self._check = BackgroundCheck(segments, self._settings.embeddings_check_interval_s)
        stats = segments.stats()
        logger.info(
            "Opened %s with %d vectors in %.2f s",
            self._settings.faiss_index_dir,
            sum(stats.vectors.values()),
            monotonic() - started,
        )

    def _open_folder(self) -> SegmentIndex | SalvagedIndex:
        settings = self._settings
        if settings.embeddings_salvage:
            return SalvagedIndex.open(settings.faiss_index_dir, self._models, self._lock)
        policy = IndexPolicy(settings.index_types())
        return SegmentIndex.open(
            settings.faiss_index_dir, self._models, self._lock, policy=policy, accept_former=True
        )

    def _wait_for_lock(self) -> None:
        logged = -LOCK_LOG_S
        while not self._lock.try_acquire():
            if monotonic() - logged >= LOCK_LOG_S:
                logged = monotonic()
                logger.warning("%s", self._locked())
            if self._closing.wait(LOCK_POLL_S):
                return
        try:
            if not self._open_if_whole():
                self._wait_for_repair()
        except ServiceError as error:
            logger.error("The folder can't be opened: %s", error)
            self.failure = error

    def _open_if_whole(self) -> bool:
        """Open the folder; False if its store is damaged, which calls are told from then on."""
        self._tried = folder_state(self._settings.faiss_index_dir)
        try:
            self._open()
        except StoreDamaged as error:
            if self.failure is None or self.failure.detail != error.detail:
                logger.error("The store is damaged, nothing is served: %s", error)
            self.failure = error
            self._metrics.unusable()
            return False
        self.failure = None
        return True

    def _wait_for_repair(self) -> None:
        """Open the folder once somebody has changed it."""
        while not self._closing.wait(REPAIR_POLL_S):
            changed = folder_state(self._settings.faiss_index_dir) != self._tried
            if not changed or not self._lock.try_acquire():
                continue
            try:
                if self._open_if_whole():
                    return
            except ServiceError as error:
                logger.error("The folder can't be opened: %s", error)
                self.failure = error
                return

    def _in_thread(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name="opening", daemon=True).start()

    def _locked(self) -> FolderLocked:
        return FolderLocked(
            f"{self._settings.faiss_index_dir} is in use by {self._lock.holder()}; "
            "waiting until that process ends"
        )

    def _unopened(self) -> ServiceError:
        if self.failure is not None:
            # A fresh one: a shared instance would collect the tracebacks of all calls.
            return type(self.failure)(self.failure.detail)
        if self._closing.is_set():
            return NotReady("the index is shutting down; try again in a moment")
        return self._locked()
