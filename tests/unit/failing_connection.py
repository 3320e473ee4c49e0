"""Connections to SQLite that fail where a test wants them to."""

import sqlite3


def sqlite_error(name: str) -> sqlite3.Error:
    error = sqlite3.OperationalError("SQLite's words")
    error.sqlite_errorcode = getattr(sqlite3, name)
    error.sqlite_errorname = name
    return error


class FailingConnection(sqlite3.Connection):
    """Fails at the statements that tests name, before or after SQLite carried them out."""

    fail_before: tuple[str, ...] = ()
    fail_after: tuple[str, ...] = ()

    def execute(self, statement: str, *arguments: object) -> sqlite3.Cursor:  # type: ignore[override]
        if statement in FailingConnection.fail_before:
            raise sqlite_error("SQLITE_IOERR_FSYNC")
        cursor = super().execute(statement, *arguments)  # type: ignore[arg-type]
        if statement in FailingConnection.fail_after:
            raise sqlite_error("SQLITE_IOERR_FSYNC")
        return cursor
