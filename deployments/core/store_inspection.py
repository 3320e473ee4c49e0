"""Looking at a store without changing a byte: of one that isn't ours nothing is written."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployments.core import schema_sql
from deployments.core.errors import StoreDamaged, StoreMismatch
from deployments.core.segments import EmbeddingType, ModelIdentity
from deployments.core.storage_errors import translated

FILE_NAME = "store.sqlite3"

_TIMEOUT_S = 5.0
_QUICK_CHECK_BYTES = 64 * 1024 * 1024  # takes 0.04 s when cached, and grows with the file


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
    if "meta" not in tables or "models" not in tables:
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
    lacking = {"format", "commit_id", "store_id"} - meta.keys()
    if lacking:
        raise StoreDamaged(f"{path} lacks its {', '.join(sorted(lacking))}. Restore a backup.")
    if meta["format"] > schema_sql.FORMAT:
        raise StoreMismatch(
            f"{path} was written by a newer version of this service (format {meta['format']}, this "
            f"one reads up to {schema_sql.FORMAT}). Start the newer version."
        )
    return meta, models


def require_ours(path: Path, models: Mapping[EmbeddingType, ModelIdentity]) -> None:
    """Raise unless the file is a whole store of this version, or an older one, and these models.

    StoreMismatch for another model, dimension or a newer version, StoreDamaged for anything else.
    """
    with translated(f"Cannot read {path}"), _untouched(path) as connection:
        flaw = "ok"
        if path.stat().st_size <= _QUICK_CHECK_BYTES:
            (flaw,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if flaw != "ok":
            raise StoreDamaged(f"{path} is damaged: {flaw}. Restore the folder from a backup.")
        _, stored = description(connection, path)
    for embedding_type, model in models.items():
        found = stored.get(embedding_type.value)
        if found is None:
            raise StoreDamaged(
                f"{path} doesn't say which model its {embedding_type} vectors are of. Restore it "
                "from a backup."
            )
        if (found.fingerprint, found.dimension) != (model.fingerprint, model.dimension):
            raise StoreMismatch(
                f"{path} holds {embedding_type} vectors of model {found.name} ({found.dimension} "
                f"dimensions, fingerprint {found.fingerprint[:12]}), but {model.name} "
                f"({model.dimension} dimensions, fingerprint {model.fingerprint[:12]}) is "
                "configured. Vectors of two models can't be compared: set "
                f"EMBEDDING_MODEL={found.name} with the EMBEDDING_PRECISION that made them, or "
                "choose another FAISS_INDEX_DIR and send the media items again."
            )
