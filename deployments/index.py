"""The Index deployment: the only process that opens the folder with the store and the indices."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

from deployments.core.errors import FolderLocked, NotReady, ServiceError
from deployments.core.folder_lock import FolderLock
from deployments.core.group_commit import GroupCommit
from deployments.core.model_identity import read_identity, with_precision
from deployments.core.model_source import find_model
from deployments.core.results import Json, results_json
from deployments.core.segment_index import SegmentIndex
from deployments.core.segments import (
    DeleteMedia,
    IndexStats,
    ModelIdentity,
    Search,
    Upsert,
    UpsertResult,
    Vectors,
)
from deployments.core.settings import Settings
from deployments.logs import log_as_serve

logger = logging.getLogger(__name__)

SEARCH_THREADS = 4
LOCK_POLL_S = 0.2
LOCK_LOG_S = 10.0


class Index:
    """Stores and searches segments; one replica, and in it one writer.

    While another process holds the folder's lock, every call raises FolderLocked, and the folder
    is opened as soon as the lock is free.
    """

    def __init__(self, settings: Settings) -> None:
        log_as_serve()
        self._settings = settings
        self._model: ModelIdentity = with_precision(
            read_identity(settings.embedding_model, find_model(settings.embedding_model)),
            settings.embedding_precision,
        )
        self._lock = FolderLock(settings.faiss_index_dir)
        self._segments: SegmentIndex | None = None
        self._writer: GroupCommit | None = None
        self._failure: ServiceError | None = None
        self._closing = threading.Event()
        self._searches = ThreadPoolExecutor(SEARCH_THREADS, thread_name_prefix="search")
        if self._lock.try_acquire():
            self._open()
        else:
            threading.Thread(target=self._wait_for_lock, name="lock", daemon=True).start()

    async def upsert(self, upsert: Upsert, fingerprint: str) -> UpsertResult:
        """Make segments durable; returns when the next search sees them.

        `fingerprint` is that of the model that made the vectors.
        """
        self._check_model(fingerprint)
        result: UpsertResult = await self._write(upsert)
        return result

    async def delete(self, deletion: DeleteMedia) -> int:
        """Remove a media item's segments for good; returns how many there were."""
        count: int = await self._write(deletion)
        return count

    async def search(
        self, searches: Sequence[Search], queries: Vectors, fingerprint: str
    ) -> list[Json]:
        """The results of each search; `queries` is (len(searches), dimension) float32."""
        segments = self._opened()
        self._check_model(fingerprint)

        def find() -> list[Json]:
            return [results_json(hits) for hits in segments.search(searches, queries)]

        return await asyncio.get_running_loop().run_in_executor(self._searches, find)

    async def stats(self) -> IndexStats:
        """Counts by type."""
        segments = self._opened()
        return await asyncio.get_running_loop().run_in_executor(self._searches, segments.stats)

    def check_health(self) -> None:
        """Serve's health check: a folder that couldn't be opened after a wait needs a restart."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Write what is queued, save checkpoints, release the folder. Safe to call twice."""
        self._closing.set()
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
        return await asyncio.shield(asyncio.wrap_future(self._opened_writer().submit(operation)))

    def _open(self) -> None:
        started = monotonic()
        try:
            segments = SegmentIndex.open(self._settings.faiss_index_dir, self._model, self._lock)
        except ServiceError:
            self._lock.release()
            raise
        self._segments, self._writer = segments, GroupCommit(segments)
        stats = segments.stats()
        logger.info(
            "Opened %s with %d vectors in %.2f s",
            self._settings.faiss_index_dir,
            sum(stats.vectors.values()),
            monotonic() - started,
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
            self._open()
        except ServiceError as error:
            logger.error("The folder can't be opened: %s", error)
            self._failure = error

    def _locked(self) -> FolderLocked:
        return FolderLocked(
            f"{self._settings.faiss_index_dir} is in use by {self._lock.holder()}; "
            "waiting until that process ends"
        )

    def _opened(self) -> SegmentIndex:
        if self._segments is None:
            raise self._unopened()
        return self._segments

    def _opened_writer(self) -> GroupCommit:
        if self._writer is None:
            raise self._unopened()
        return self._writer

    def _unopened(self) -> ServiceError:
        if self._failure is not None:
            return self._failure
        if self._closing.is_set():
            return NotReady("the index is shutting down; try again in a moment")
        return self._locked()

    def _check_model(self, fingerprint: str) -> None:
        if fingerprint != self._model.fingerprint:
            raise NotReady(
                "encoder and index run different models at the moment; if this lasts, both "
                "applications in the config file need the same embedding_model and "
                "embedding_precision"
            )
