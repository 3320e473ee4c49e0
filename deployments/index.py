"""The Index deployment: the only process that opens the folder with the store and the indices."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from deployments.core.api.list_results import media_json, segments_json
from deployments.core.api.results import Json, answer_or_failure
from deployments.core.api.search_answers import answers_json
from deployments.core.configured_models import read_models
from deployments.core.errors import FolderLocked, NotReady, ServiceError, StoreDamaged
from deployments.core.folders.salvaged_index import SalvagedIndex
from deployments.core.index.background_check import BackgroundCheck
from deployments.core.index.folder_check import folder_state
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.search.media_lists import MediaList, SegmentList
from deployments.core.segments import (
    DeleteMedia,
    EmbeddingType,
    IndexStats,
    Models,
    MomentSearch,
    Queries,
    Search,
    SegmentName,
    Upsert,
    UpsertResult,
)
from deployments.core.settings import Settings
from deployments.core.storage.folder_lock import FolderLock
from deployments.core.storage.group_commit import GroupCommit
from deployments.core.storage.migration_record import Act, MigrationRequest, MigrationStatus
from deployments.core.vectors.index_policy import IndexPolicy
from deployments.index_migrations import Encoding, IndexMigrations, warn_of_other_models
from deployments.logs import log_as_serve
from deployments.metrics import IndexMetrics, Publisher
from deployments.remote_encoding import RemoteEncoding

logger = logging.getLogger(__name__)

T = TypeVar("T")

Fingerprints = Mapping[EmbeddingType, str]
"""Of the models that made the vectors of a call, by the types that these are compared with."""

SEARCH_THREADS = 4
LOCK_POLL_S = 0.2
LOCK_LOG_S = 10.0
REPAIR_POLL_S = 1.0


class Index:
    """Stores and searches segments; one replica, and in it one writer.

    While another process holds the folder's lock, every call raises FolderLocked, and the folder
    is opened as soon as the lock is free. While its store is damaged, every call raises
    StoreDamaged, unless EMBEDDINGS_SALVAGE is set, and the folder is opened as soon as somebody
    has repaired it.
    """

    def __init__(self, settings: Settings, encoding: Encoding | None = None) -> None:
        """`encoding` encodes for migrations; by default the Encoders do."""
        log_as_serve()
        # Serve builds a replica on the event loop that its calls run on.
        self._encoding = encoding or RemoteEncoding(settings, asyncio.get_running_loop())
        self._settings = settings
        self._models = read_models(settings.models(), settings.embedding_precision)
        self._lock = FolderLock(settings.faiss_index_dir)
        self._segments: SegmentIndex | SalvagedIndex | None = None
        self._writer: GroupCommit | None = None
        self._failure: ServiceError | None = None
        self._tried: frozenset[Any] = frozenset()
        self._check: BackgroundCheck | None = None
        self._metrics = IndexMetrics()
        self._publisher: Publisher | None = None
        self._closing = threading.Event()
        self._searches = ThreadPoolExecutor(SEARCH_THREADS, thread_name_prefix="search")
        self._checks = ThreadPoolExecutor(1, thread_name_prefix="check")
        self._changes = ThreadPoolExecutor(1, thread_name_prefix="migrate")
        self._migrations: IndexMigrations | None = None
        if not self._lock.try_acquire():
            self._in_thread(self._wait_for_lock)
        elif not self._open_if_whole():
            self._in_thread(self._wait_for_repair)

    async def upsert(self, upsert: Upsert, fingerprint: str) -> UpsertResult:
        """Make segments durable; returns when the next search sees them.

        `fingerprint` is that of the model that made the vectors. Raises OtherModel if the index
        has others.
        """
        result: UpsertResult = await self._write(replace(upsert, fingerprint=fingerprint))
        return result

    async def delete(self, deletion: DeleteMedia) -> int:
        """Remove a media item's segments for good; returns how many there were."""
        count: int = await self._write(deletion)
        return count

    async def search(
        self,
        searches: Sequence[Search | MomentSearch],
        queries: Queries,
        fingerprints: Fingerprints,
    ) -> list[Json | ServiceError]:
        """The answer to each search, or why it has none; see answers_json.

        Raises OtherModel if an index has vectors of another model than `fingerprints` says.
        """
        reads = self._opened().reads.comparing(fingerprints)
        started, until = monotonic(), self._filters_until()
        found = await self._in_search_thread(lambda: answers_json(reads, searches, queries, until))
        seconds = monotonic() - started
        self._metrics.searched(seconds)
        logger.debug("Answered %d searches in %.1f ms", len(searches), seconds * 1000)
        return found

    async def similar(self, name: SegmentName, search: Search) -> Json:
        """The answer to a search for what is near to a stored segment."""
        reads, until = self._opened().reads, self._filters_until()
        found = await self._in_search_thread(
            lambda: answer_or_failure(reads.similar(name, search, until))
        )
        if isinstance(found, ServiceError):
            raise found
        return found

    async def media(self, wanted: MediaList) -> Json:
        """A page of the media items that have segments."""
        reads = self._opened().reads
        return await self._in_search_thread(lambda: media_json(wanted, reads.media(wanted)))

    async def segments(self, wanted: SegmentList) -> Json:
        """A page of a media item's segments."""
        reads = self._opened().reads
        return await self._in_search_thread(lambda: segments_json(wanted, reads.segments(wanted)))

    async def stats(self) -> IndexStats:
        """Counts by type, at once, however many searches wait."""
        stats = await self._in_check_thread(self._opened().stats)
        migration = None
        if self._migrations is not None:
            migration = await self._in_check_thread(self._migrations.status)
        last_write_at = self._opened_writer().last_commit_at
        return replace(stats, last_write_at=last_write_at, migration=migration)

    async def models(self) -> Models:
        """The models of the vectors that are searched now."""
        return self._opened().models

    async def migrate(self, request: MigrationRequest) -> MigrationStatus | None:
        """Change the model, or tell how far that is."""
        self._opened_writer()
        if self._migrations is None:
            raise StoreDamaged("a damaged store that is only searched can't change its model")
        # A caller that goes away must not leave it unknown whether a switch happened.
        work = partial(self._migrations.migrate, request)
        threads = self._checks if request.act is Act.STATUS else self._changes
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(threads, work))

    async def check(
        self, searches: Sequence[Search], queries: Queries, fingerprints: Fingerprints
    ) -> None:
        """Search for real, at once, however many other searches wait."""
        reads = self._opened().reads.comparing(fingerprints)
        await self._in_check_thread(lambda: reads.answer(searches, queries))

    def check_health(self) -> None:
        """Serve's health check: a folder that couldn't be opened after a wait needs a restart.

        A damaged store needs an operator instead; until then the calls say so.
        """
        if self._failure is not None and not isinstance(self._failure, StoreDamaged):
            raise self._failure

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

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # __init__ may have refused to start
            self.close()

    async def _write(self, operation: Upsert | DeleteMedia) -> Any:
        # A caller that goes away must not leave it unknown whether a write happened.
        started = monotonic()
        done = await asyncio.shield(asyncio.wrap_future(self._opened_writer().submit(operation)))
        logger.debug("%s in %.1f ms", type(operation).__name__, (monotonic() - started) * 1000)
        return done

    async def _in_search_thread(self, read: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._searches, read)

    async def _in_check_thread(self, read: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._checks, read)

    def _filters_until(self) -> float:
        """When the filters of a call that begins now are given up, in time for its answer."""
        return monotonic() + self._settings.embeddings_timeout_s / 2

    def _open(self) -> None:
        started = monotonic()
        try:
            segments = self._open_folder()
        except ServiceError:
            self._lock.release()
            raise
        self._segments, self._writer = segments, (writer := GroupCommit(segments))
        if isinstance(segments, SegmentIndex):
            self._migrations = IndexMigrations(self._settings, segments, writer, self._encoding)
            warn_of_other_models(self._models, segments.models)
        migrations = self._migrations
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
            self._failure = error

    def _open_if_whole(self) -> bool:
        """Open the folder; False if its store is damaged, which calls are told from then on."""
        self._tried = folder_state(self._settings.faiss_index_dir)
        try:
            self._open()
        except StoreDamaged as error:
            if self._failure is None or self._failure.detail != error.detail:
                logger.error("The store is damaged, nothing is served: %s", error)
            self._failure = error
            self._metrics.unusable()
            return False
        self._failure = None
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
                self._failure = error
                return

    def _in_thread(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name="opening", daemon=True).start()

    def _locked(self) -> FolderLocked:
        return FolderLocked(
            f"{self._settings.faiss_index_dir} is in use by {self._lock.holder()}; "
            "waiting until that process ends"
        )

    def _opened(self) -> SegmentIndex | SalvagedIndex:
        if self._segments is None:
            raise self._unopened()
        return self._segments

    def _opened_writer(self) -> GroupCommit:
        if self._writer is None:
            raise self._unopened()
        return self._writer

    def _unopened(self) -> ServiceError:
        if self._failure is not None:
            # A fresh one: a shared instance would collect the tracebacks of all calls.
            return type(self._failure)(self._failure.detail)
        if self._closing.is_set():
            return NotReady("the index is shutting down; try again in a moment")
        return self._locked()
