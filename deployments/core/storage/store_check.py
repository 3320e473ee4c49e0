"""Reading a whole store to find what is wrong with it."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from deployments.core.errors import StoreDamaged
from deployments.core.segments import EmbeddingType, Models
from deployments.core.storage.keyword_check import keyword_flaws, row_flaws
from deployments.core.storage.standby_check import standby_flaws
from deployments.core.storage.store_inspection import table_flaws
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage.stored_rows import COLUMNS, is_intact, name_of
from deployments.core.storage_errors import RESTORE, translated
from deployments.core.telling import Tell, tell_nobody, told


def problems(reader: StoreReader, models: Models, tell: Tell = tell_nobody) -> list[str]:
    """What is wrong with the store, one sentence each; empty if nothing is.

    Reads everything: SQLite's own structures, the checksum of each row and its vector, and that
    each segment has a vector and its keywords, and nothing else is there. A store of 100,000
    segments takes seconds.
    """
    tell("Checking the file", 0, None)
    rows = partial(_rows, models=models, tell=tell)
    whole = (_segments_alone, _vectors_alone, keyword_flaws, rows, standby_flaws)
    return _found(reader, table_flaws, _structure, *whole)


def structure_problems(reader: StoreReader) -> list[str]:
    """As `problems`, of the tables and of SQLite's own structures alone, indices included."""
    return _found(reader, table_flaws, _structure)


def row_problems(reader: StoreReader, kind: EmbeddingType, sequences: Sequence[int]) -> list[str]:
    """What is wrong with these rows, one sentence for each that is damaged or can't be read."""
    try:
        reader.proven_blobs(kind, sequences)
    except StoreDamaged as error:
        if len(sequences) == 1:
            problem = error.detail.removesuffix(RESTORE).rstrip()
            return [problem if problem.startswith("Row ") else f"Row {sequences[0]}: {problem}"]
        middle = len(sequences) // 2
        return [
            *row_problems(reader, kind, sequences[:middle]),
            *row_problems(reader, kind, sequences[middle:]),
        ]
    return _found(reader, partial(row_flaws, sequences=sequences))


_Check = Callable[[sqlite3.Connection], Iterable[str]]


def _found(reader: StoreReader, *checks: _Check) -> list[str]:
    found: list[str] = []
    for check in checks:
        # Where one can't be read to its end, what it found and the other checks still count.
        try:
            with translated("Cannot verify the store"):
                for problem in check(reader.connection):
                    found.append(problem)
        except StoreDamaged as error:
            problem = error.detail.removesuffix(RESTORE).rstrip()
            if problem not in found:
                found.append(problem)
    return found


def _structure(connection: sqlite3.Connection) -> Iterator[str]:
    for (message,) in connection.execute("PRAGMA integrity_check(100)"):
        if message != "ok":
            yield f"SQLite: {message}."


def _segments_alone(connection: sqlite3.Connection) -> Iterator[str]:
    for (seq,) in connection.execute(
        "SELECT seq FROM segments WHERE seq NOT IN (SELECT seq FROM vectors)"
    ):
        yield f"Row {seq} has no vector."


def _vectors_alone(connection: sqlite3.Connection) -> Iterator[str]:
    for (seq,) in connection.execute(
        "SELECT seq FROM vectors WHERE seq NOT IN (SELECT seq FROM segments)"
    ):
        yield f"Vector {seq} has no segment."


def _rows(connection: sqlite3.Connection, models: Models, tell: Tell) -> Iterator[str]:
    rows = connection.execute(
        f"SELECT {COLUMNS}, vector FROM segments JOIN vectors USING (seq) ORDER BY seq"
    )
    # By text: a damaged file may name a type that isn't there.
    dimensions = {kind.value: model.dimension for kind, model in models.items()}
    for row in told(tell, "Checking segments", rows):
        yield from _flaws(row, dimensions)


def _flaws(row: tuple[Any, ...], dimensions: Mapping[str, int]) -> Iterator[str]:
    *fields, vector = row
    if not is_intact(fields, vector):
        yield f"{name_of(fields)} is not what was written: its checksum differs."
    expected = 4 * dimensions.get(fields[1], 0)
    if isinstance(vector, bytes) and len(vector) != expected:
        yield f"{name_of(fields)} has a vector of {len(vector)} bytes, expected {expected}."
