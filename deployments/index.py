"""The Index deployment: the only process that opens the folder with the store and the indices."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from deployments.core.api.list_results import media_json, segments_json
from deployments.core.api.results import Json, answer_or_failure
from deployments.core.api.search_answers import answers_json
from deployments.core.errors import ServiceError, StoreDamaged
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
from deployments.core.storage.migration_record import Act, MigrationRequest, MigrationStatus
from deployments.index_folder import IndexFolder
from deployments.index_migrations import Encoding
from deployments.logs import log_as_serve
from deployments.metrics import IndexMetrics
from deployments.remote_encoding import RemoteEncoding

logger = logging.getLogger(__name__)

T = TypeVar("T")

Fingerprints = Mapping[EmbeddingType, str]
"""Of the models that made the vectors of a call, by the types that these are compared with."""

SEARCH_THREADS = 4


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
        self._metrics = IndexMetrics()
        self._searches = ThreadPoolExecutor(SEARCH_THREADS, thread_name_prefix="search")
        self._checks = ThreadPoolExecutor(1, thread_name_prefix="check")
        self._changes = ThreadPoolExecutor(1, thread_name_prefix="migrate")
        self._folder = IndexFolder(settings, self._encoding, self._metrics)

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
        reads = self._folder.segments.reads.comparing(fingerprints)
        started, until = monotonic(), self._filters_until()
        found = await self._in_search_thread(lambda: answers_json(reads, searches, queries, until))
        seconds = monotonic() - started
        self._metrics.searched(seconds)
        logger.debug("Answered %d searches in %.1f ms", len(searches), seconds * 1000)
        return found

    async def similar(self, name: SegmentName, search: Search) -> Json:
        """The answer to a search for what is near to a stored segment."""
        reads, until = self._folder.segments.reads, self._filters_until()
        found = await self._in_search_thread(
            lambda: answer_or_failure(reads.similar(name, search, until))
        )
        if isinstance(found, ServiceError):
            raise found
        return found

    async def media(self, wanted: MediaList) -> Json:
        """A page of the media items that have segments."""
        reads = self._folder.segments.reads
        return await self._in_search_thread(lambda: media_json(wanted, reads.media(wanted)))

    async def segments(self, wanted: SegmentList) -> Json:
        """A page of a media item's segments."""
        reads = self._folder.segments.reads
        return await self._in_search_thread(lambda: segments_json(wanted, reads.segments(wanted)))

    async def stats(self) -> IndexStats:
        """Counts by type, at once, however many searches wait."""
        folder = self._folder
        stats = await self._in_check_thread(folder.segments.stats)
        migrations = folder.migrations
        status = None
        if migrations is not None:
            status = await self._in_check_thread(migrations.status)
        return replace(stats, last_write_at=folder.writer.last_commit_at, migration=status)

    async def models(self) -> Models:
        """The models of the vectors that are searched now."""
        return self._folder.segments.models

    async def migrate(self, request: MigrationRequest) -> MigrationStatus | None:
        """Change the model, or tell how far that is."""
        migrations = self._folder.migrations
        if migrations is None:
            raise StoreDamaged("a damaged store that is only searched can't change its model")
        # A caller that goes away must not leave it unknown whether a switch happened.
        work = partial(migrations.migrate, request)
        threads = self._checks if request.act is Act.STATUS else self._changes
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(threads, work))

    async def check(
        self, searches: Sequence[Search], queries: Queries, fingerprints: Fingerprints
    ) -> None:
        """Search for real, at once, however many other searches wait."""
        reads = self._folder.segments.reads.comparing(fingerprints)
        await self._in_check_thread(lambda: reads.answer(searches, queries))

    def check_health(self) -> None:
        """Serve's health check: a folder that couldn't be opened after a wait needs a restart.

        A damaged store needs an operator instead; until then the calls say so.
        """
        failure = self._folder.failure
        if failure is not None and not isinstance(failure, StoreDamaged):
            raise failure

    def close(self) -> None:
        """Write what is queued, save checkpoints, release the folder. Safe to call twice."""
        self._folder.close()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # __init__ may have refused to start
            self.close()

    async def _write(self, operation: Upsert | DeleteMedia) -> Any:
        # A caller that goes away must not leave it unknown whether a write happened.
        started = monotonic()
        done = await asyncio.shield(asyncio.wrap_future(self._folder.writer.submit(operation)))
        logger.debug("%s in %.1f ms", type(operation).__name__, (monotonic() - started) * 1000)
        return done

    async def _in_search_thread(self, read: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._searches, read)

    async def _in_check_thread(self, read: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._checks, read)

    def _filters_until(self) -> float:
        """When the filters of a call that begins now are given up, in time for its answer."""
        return monotonic() + self._settings.embeddings_timeout_s / 2
