"""Where errors of SQLite and of the operating system become the service's own."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from deployments.core.errors import (
    InvalidInput,
    NotReady,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreUnwritable,
)

_PRIMARY = 0xFF  # an extended SQLite code carries its primary code in the lowest byte
_FULL = {sqlite3.SQLITE_FULL}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_UNWRITABLE = {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOLFS,
}
_HELD = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}

# Refusals of statements that a store of this service, if whole, can't refuse.
_OTHER_TABLES = ("no such ", "no query solution", "unsupported file format", "malformed")

_FREE_SPACE = "Free space on its disk; writes work again without a restart."
_CHECK_DISK = "Check its permissions, mount options and disk (dmesg)."
RESTORE = (
    "`embeddings-service verify` lists what is damaged. Restore the folder from a backup with "
    "`embeddings-service restore`; without one, `embeddings-service export --salvage` saves what "
    "is intact, and with EMBEDDINGS_SALVAGE=1 the service searches that, read-only."
)
"""What to do about a damaged store."""


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Raise what fails inside as a StoreError whose message begins with `action`."""
    try:
        yield
    except sqlite3.Error as error:
        raise _from_sqlite(action, error) from error
    except OSError as error:
        raise from_os_error(action, error) from error
    except UnicodeDecodeError as error:
        # SQLite quoted a damaged name in its message.
        raise StoreDamaged(f"{action}: the store is damaged: {error}. {RESTORE}") from error


def from_os_error(action: str, error: OSError) -> StoreError:
    """The StoreError for an error of the operating system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"{action}: no space left ({error}). {_FREE_SPACE}")
    return StoreUnwritable(f"{action}: {error}. {_CHECK_DISK}")


def _from_sqlite(action: str, error: sqlite3.Error) -> StoreError | InvalidInput | NotReady:
    extended = getattr(error, "sqlite_errorcode", None)
    if extended is None:
        # Refused by the module, not by SQLite: a closed connection, or text that isn't UTF-8.
        if isinstance(error, sqlite3.ProgrammingError):
            return NotReady(f"{action}: {error}.")
        return StoreDamaged(f"{action}: the store is damaged: {error}. {RESTORE}")
    said = f"{error} ({error.sqlite_errorname})"
    code = extended & _PRIMARY
    if code == sqlite3.SQLITE_ERROR and str(error).startswith(_OTHER_TABLES):
        code = sqlite3.SQLITE_CORRUPT
    if extended == sqlite3.SQLITE_IOERR_CORRUPTFS or code in _DAMAGED:
        return StoreDamaged(f"{action}: the store is damaged: {said}. {RESTORE}")
    if code in _FULL:
        return StoreFull(f"{action}: no space left: {said}. {_FREE_SPACE}")
    if code in _UNWRITABLE:
        return StoreUnwritable(f"{action}: {said}. {_CHECK_DISK}")
    if code in _HELD:
        return StoreUnwritable(
            f"{action}: another process uses the store: {said}. Close other programs that have "
            "store.sqlite3 open."
        )
    if code == sqlite3.SQLITE_TOOBIG:
        return InvalidInput(f"{action}: a value is larger than SQLite can store: {said}.")
    return StoreError(f"{action}: {said}.")
