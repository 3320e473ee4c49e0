"""Connections to a store's file, and making a new one."""

import os
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

from deployments.core.durable_files import TEMPORARY_SUFFIX, Disk
from deployments.core.errors import StoreUnwritable
from deployments.core.segments import Models
from deployments.core.storage import schema_sql

BUSY_TIMEOUT_S = 5.0
BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a file has the file's name with one of these at its end."""

_APPLICATION_ID = 0x656D6273  # "embs", so that file(1) can tell what this is


def connect(path: Path) -> sqlite3.Connection:
    """Open a store's file for reading and writing, with every commit durable.

    Raises sqlite3.Error, or StoreUnwritable where SQLite can't keep a write-ahead log.
    """
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S
    )
    try:
        # Both count only for a file that is still empty.
        connection.execute(f"PRAGMA page_size={schema_sql.PAGE_BYTES}")
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise StoreUnwritable(
                f"{path} can't use a write-ahead log (journal mode is {mode}): its file "
                "system has no shared memory. Put the folder on a local disk."
            )
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def create(path: Path, models: Models, disk: Disk) -> None:
    """Make a new store. A power failure leaves all of it or no store, never a part.

    Raises as `connect`, and OSError.
    """
    incoming = path.with_name(path.name + TEMPORARY_SUFFIX)
    _remove(incoming)
    # What is beside the name now is of another file, and SQLite would take it for the new one's.
    if _remove(path):
        disk.sync_folder(path.parent)
    with closing(connect(incoming)) as connection:
        _fill(connection, models)
    descriptor = os.open(incoming, os.O_RDONLY | os.O_CLOEXEC)
    try:
        disk.sync(descriptor)
    finally:
        os.close(descriptor)
    disk.replace(incoming, path)
    disk.sync_folder(path.parent)


def _remove(path: Path) -> bool:
    """Delete a file and what SQLite has put beside it; whether there was any of it."""
    found = [each for end in ("", *BESIDE) if (each := path.with_name(path.name + end)).exists()]
    for each in found:
        each.unlink()
    return bool(found)


def _fill(connection: sqlite3.Connection, models: Models) -> None:
    connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
    connection.execute("BEGIN IMMEDIATE")
    for statement in schema_sql.statements(schema_sql.script()):
        connection.execute(statement)
    connection.executemany(
        "INSERT INTO meta VALUES (?,?)",
        [("format", schema_sql.FORMAT), ("commit_id", 0), ("store_id", uuid.uuid4().hex)],
    )
    connection.executemany(
        "INSERT INTO models VALUES (?,?,?,?)",
        [
            (embedding_type.value, model.name, model.fingerprint, model.dimension)
            for embedding_type, model in models.items()
        ],
    )
    connection.execute("COMMIT")
    # Closing would do it too, but says nothing if it can't.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
