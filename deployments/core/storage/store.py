"""store.sqlite3: the truth about every segment. Opening, transactions and connections."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deployments.core.durable_files import Disk
from deployments.core.errors import NotReady
from deployments.core.segments import Models
from deployments.core.storage import keyword_sql, schema_sql
from deployments.core.storage.store_creation import BUSY_TIMEOUT_S, connect, create
from deployments.core.storage.store_inspection import FILE_NAME, exists, require_ours
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage.store_writer import StoreWriter
from deployments.core.storage_errors import translated

_IDLE_READERS = 16
_CLOSE_TIMEOUT_S = 10.0
_LOG_BYTES = 32 * 1024 * 1024
_LOG_WAIT_MS = 1000


class Store:
    """The SQLite file of one index folder: one writing connection, a pool of reading ones.

    Every method raises StoreError or one of its subclasses for what SQLite or the disk refuses.
    Whoever opens it must hold the folder's lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._protected = False
        self._undone = False
        self._next_sequence = 1
        self._in_doubt = False
        self._log_limit = _LOG_BYTES
        self._readers = threading.Condition()
        self._idle: list[sqlite3.Connection] = []
        self._in_use = 0
        self._closed = False
        self.store_id = ""
        self.models: Models = {}
        """Of the vectors at opening; named as the caller does."""

    @classmethod
    def open(
        cls,
        folder: Path,
        models: Models,
        disk: Disk | None = None,
        *,
        accept_former: bool = False,
    ) -> "Store":
        """Open the folder's store, or make a new one.

        Nothing is written before the file is known to be of this version or an older one and of
        these models; with `accept_former`, they may be ones whose vectors were exchanged for the
        present ones. Raises StoreMismatch if it isn't, StoreDamaged if it can't be read.
        """
        store = cls(folder / FILE_NAME)
        known = exists(folder)
        if known:
            require_ours(store._path, models, accept_former=accept_former)
        try:
            with translated(f"Cannot open {store._path}"):
                if not known:
                    create(store._path, models, disk or Disk())
                writer = store._connect_writer()
                store._migrate()
                (store.store_id,) = writer.execute(
                    "SELECT value FROM meta WHERE key='store_id'"
                ).fetchone()
            present = StoreReader(writer).models()
            store.models = {
                kind: model if model.makes_the_same_as(present[kind]) else present[kind]
                for kind, model in models.items()
            }
        except BaseException:
            store.close()
            raise
        return store

    def _migrate(self) -> None:
        assert self._writer is not None
        while True:
            (version,) = self._writer.execute(
                "SELECT value FROM meta WHERE key='format'"
            ).fetchone()
            if version >= schema_sql.FORMAT:
                return
            self._writer.execute("BEGIN IMMEDIATE")
            for statement in schema_sql.statements(schema_sql.MIGRATIONS[version]):
                self._writer.execute(statement)
            if version + 1 in schema_sql.FILLS_KEYWORDS:
                keyword_sql.fill(self._writer)
            self._writer.execute("UPDATE meta SET value=? WHERE key='format'", (version + 1,))
            self._writer.execute("COMMIT")

    @contextmanager
    def transaction(self) -> Iterator[StoreWriter]:
        """A writing transaction, durable when the block has ended.

        If the block changed nothing, nothing is written. If it or the commit raises, nothing of
        it is kept, and the next transaction starts from a known state. A commit that failed may
        lie in the log all the same, and a restart would find it; so what is answered next is
        written over it, even if that changes nothing.
        """
        with self._writing:
            if self._closed:
                raise NotReady("The store is closed.")
            try:
                with translated("Cannot begin a write to the store"):
                    connection = self._connect_writer()
                    connection.execute("BEGIN IMMEDIATE")
                writer = StoreWriter(connection, self._next_sequence, changed=self._in_doubt)
                writer.next_sequence = max(writer.next_sequence, writer.last_sequence() + 1)
                yield writer
                with translated("Cannot make a write durable"):
                    if writer.changed:
                        self._in_doubt = True
                        connection.execute("UPDATE meta SET value=value+1 WHERE key='commit_id'")
                        connection.execute("COMMIT")
                        self._in_doubt = False
                    else:
                        connection.execute("ROLLBACK")
                self._next_sequence = writer.next_sequence
            except BaseException:
                self._abandon()
                raise
            self._trim_log(connection)

    def _connect_writer(self) -> sqlite3.Connection:
        if self._writer is not None and self._protected:
            # SQLite opened the file for reading only, and would go on so whatever becomes of it.
            self._writer.close()
            self._writer = None
        if self._writer is None or self._undone:
            # The old one is closed last: a log that nobody has open is read anew, and would show
            # commits that failed.
            undone, self._writer = self._writer, connect(self._path)
            self._undone = False
            self._protected = not os.access(self._path, os.W_OK, effective_ids=True)
            if undone is not None:
                undone.close()
        return self._writer

    def _trim_log(self, connection: sqlite3.Connection) -> None:
        """Empty a write-ahead log that has grown large.

        While searches overlap without a pause SQLite never finds the moment to begin its log
        anew, and it would grow without end. Here a write waits for the searches that run now, but
        not for long: behind a long read such as verify() the log may go on growing.
        """
        with suppress(OSError, sqlite3.Error):
            size = self._path.with_name(self._path.name + "-wal").stat().st_size
            if size <= self._log_limit:
                return
            connection.execute(f"PRAGMA busy_timeout={_LOG_WAIT_MS}")
            try:
                statement = "PRAGMA wal_checkpoint(TRUNCATE)"
                (busy, _, _) = connection.execute(statement).fetchone()
            finally:
                connection.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
            self._log_limit = size + _LOG_BYTES if busy else _LOG_BYTES

    def _abandon(self) -> None:
        """Leave the transaction; a connection that can't is replaced before the next one.

        So is one whose transaction SQLite undid by itself, on a full or failing disk: what FTS5
        has in memory of its table may be that of the undone transaction then, and it would take
        the table for damaged.
        """
        if self._writer is None:
            return
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            else:
                self._undone = True
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                self._writer.close()
            self._writer = None

    @contextmanager
    def reading(self) -> Iterator[StoreReader]:
        """A view of the store at the moment of its first read. Connections are shared by turns."""
        with translated("Cannot read the store"):
            connection = self._take_reader()
        kept = False
        try:
            with translated("Cannot read the store"):
                connection.execute("BEGIN")
            yield StoreReader(connection)
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            kept = not connection.in_transaction
        finally:
            self._return_reader(connection, kept)

    def _take_reader(self) -> sqlite3.Connection:
        with self._readers:
            if self._closed:
                raise NotReady("The store is closed.")
            self._in_use += 1
            if self._idle:
                return self._idle.pop()
        try:
            connection = connect(self._path)
            connection.execute("PRAGMA query_only=1")
        except BaseException:
            with self._readers:
                self._in_use -= 1
                self._readers.notify_all()
            raise
        return connection

    def _return_reader(self, connection: sqlite3.Connection, usable: bool) -> None:
        with self._readers:
            self._in_use -= 1
            if usable and not self._closed and len(self._idle) < _IDLE_READERS:
                self._idle.append(connection)
            else:
                connection.close()
            self._readers.notify_all()

    def close(self) -> None:
        """Close all connections, once running reads have ended."""
        with self._readers:
            self._closed = True
            self._readers.wait_for(lambda: self._in_use == 0, timeout=_CLOSE_TIMEOUT_S)
            while self._idle:
                self._idle.pop().close()
        with self._writing:
            if self._writer is not None:
                # SQLite moves the log into the main file here; failing that it stays beside it.
                with suppress(sqlite3.Error):
                    self._writer.close()
                self._writer = None
