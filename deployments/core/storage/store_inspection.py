"""Looking at a store without changing a byte: of one that isn't ours nothing is written."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from deployments.core.errors import StoreDamaged, StoreMismatch, StoreUnwritable
from deployments.core.segments import ModelIdentity, Models
from deployments.core.storage import schema_sql
from deployments.core.storage_errors import RESTORE, translated

FILE_NAME = "store.sqlite3"

_TIMEOUT_S = 5.0
_CHECKED_BYTES = 64 * 1024 * 1024  # takes 0.15 s when cached, and grows with the file

_META = {"format": int, "commit_id": int, "store_id": str}


def exists(folder: Path) -> bool:
    """Whether the folder has a store. An empty file is what a cut off first start leaves."""
    path = folder / FILE_NAME
    with translated(f"Cannot look for {path}"):
        try:
            if path.stat().st_size > 0:
                return _has_tables(path)
        except FileNotFoundError:
            pass
    return False


@contextmanager
def _untouched(path: Path) -> Iterator[sqlite3.Connection]:
    log = path.with_name(path.name + "-wal")
    # Without a log SQLite would make one even to read, unless told that nobody writes.
    mode = "mode=ro" if log.exists() and log.stat().st_size > 0 else "immutable=1"
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, timeout=_TIMEOUT_S)
    try:
        yield connection
    finally:
        connection.close()


def _has_tables(path: Path) -> bool:
    with _untouched(path) as connection:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return bool(tables)


def description(
    connection: sqlite3.Connection, path: Path
) -> tuple[dict[str, Any], dict[str, ModelIdentity]]:
    """What a store says of itself, and the model of each type.

    Raises StoreDamaged if it isn't a store of this service, StoreMismatch for a newer version.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not tables & {"meta", "models", "segments"}:
        raise StoreDamaged(
            f"{path} is an SQLite file, but not of this service. Move it away or choose "
            "another FAISS_INDEX_DIR."
        )
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    models = {
        embedding_type: ModelIdentity(name, fingerprint, dimension)
        for embedding_type, name, fingerprint, dimension in connection.execute(
            "SELECT embedding_type, name, fingerprint, dimension FROM models"
        )
    }
    lacking = _META.keys() - meta.keys()
    if lacking:
        raise StoreDamaged(f"{path} lacks its {', '.join(sorted(lacking))}. {RESTORE}")
    for key, kind in _META.items():
        if not isinstance(meta[key], kind):
            raise StoreDamaged(
                f"{path} is damaged: its {key} is {meta[key]!r}, which can't be. {RESTORE}"
            )
    if meta["format"] > schema_sql.FORMAT:
        raise StoreMismatch(
            f"{path} was written by a newer version of this service (format {meta['format']}, this "
            f"one reads up to {schema_sql.FORMAT}). Start the newer version."
        )
    return meta, models


def _is_unread(flaw: str) -> bool:
    """Whether SQLite's check failed because the disk didn't give it a page."""
    code = re.search(r"error code=(\d+)", flaw)
    return code is not None and int(code[1]) & 0xFF == sqlite3.SQLITE_IOERR


def table_flaws(connection: sqlite3.Connection) -> list[str]:
    """How the tables and indices differ from those of schema_sql, one sentence each."""
    (version,) = connection.execute("SELECT value FROM meta WHERE key='format'").fetchone()
    found, expected = _tables(connection), _expected_tables(version)
    return [
        f"The store's definition of {name} isn't the one that this service made."
        for name in expected
        if found.get(name) != expected[name]
    ]


def _tables(connection: sqlite3.Connection) -> dict[str, Any]:
    """The columns of each table of ours, and the definition of each index."""
    found: dict[str, Any] = {}
    for kind, name, sql in connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    ).fetchall():
        if kind == "table" and not name.startswith("sqlite_"):
            found[name] = connection.execute(
                "SELECT * FROM pragma_table_xinfo(?)", (name,)
            ).fetchall()
        elif kind == "index":
            found[name] = " ".join(sql.split())
    return found


@cache
def _expected_tables(version: int) -> dict[str, Any]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(schema_sql.script(version))
        return _tables(connection)


def _former_models(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """Type and fingerprint of each model whose vectors were exchanged for others."""
    (version,) = connection.execute("SELECT value FROM meta WHERE key='format'").fetchone()
    if version < schema_sql.STANDBY_SINCE:
        return set()
    return set(connection.execute("SELECT embedding_type, fingerprint FROM former_models"))


def require_ours(path: Path, models: Models, *, accept_former: bool = False) -> None:
    """Raise unless the file is a whole store of this version, or an older one, and these models.

    With `accept_former`, models whose vectors were exchanged for the present ones will do.
    StoreMismatch for another model, dimension or a newer version, StoreUnwritable where the disk
    fails, StoreDamaged for anything else.
    """
    with translated(f"Cannot read {path}"), _untouched(path) as connection:
        flaw = "ok"
        if path.stat().st_size <= _CHECKED_BYTES:
            (flaw,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if _is_unread(flaw):
            raise StoreUnwritable(f"Cannot read {path}: {flaw}. Check its disk (dmesg).")
        if flaw != "ok":
            raise StoreDamaged(f"{path} is damaged: {flaw}. {RESTORE}")
        meta, stored = description(connection, path)
        flaws = table_flaws(connection) if meta["format"] == schema_sql.FORMAT else []
        if flaws:
            raise StoreDamaged(f"{path} is damaged: {flaws[0]} {RESTORE}")
        accepted = _former_models(connection) if accept_former else set()
    for embedding_type, model in models.items():
        found = stored.get(embedding_type.value)
        if found is None:
            raise StoreDamaged(
                f"{path} doesn't say which model its {embedding_type} vectors are of. {RESTORE}"
            )
        former = (embedding_type.value, model.fingerprint) in accepted
        if not found.makes_the_same_as(model) and not former:
            raise StoreMismatch(
                f"{path} holds {embedding_type} vectors of model {found.name} ({found.dimension} "
                f"dimensions, fingerprint {found.fingerprint[:12]}), but {model.name} "
                f"({model.dimension} dimensions, fingerprint {model.fingerprint[:12]}) is "
                "configured. Vectors of two models can't be compared: set "
                f"EMBEDDING_MODEL={found.name}, or EMBEDDING_MODEL_{embedding_type.upper()} for "
                "this index alone, with the EMBEDDING_PRECISION that made them, or choose another "
                "FAISS_INDEX_DIR and send the media items again."
            )
