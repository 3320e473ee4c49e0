"""The store's full-text tables: which rows have a term, and where.

Each row of `keywords` has a row's terms, with spaces between, in the column of its type, under
the row's sequence number. Whoever calls this has a transaction begun.
"""

import sqlite3
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from deployments.core.segments import EmbeddingType
from deployments.core.storage.analyzer import terms

Numbers = npt.NDArray[np.int64]
Places = tuple[Numbers, Numbers]
"""Sequence numbers and positions, from 0, of a term: two arrays of one length."""

_ROWS_AT_ONCE = 4096


def add(
    connection: sqlite3.Connection, kind: EmbeddingType, texts: Iterable[tuple[int, str]]
) -> None:
    """Make the texts of these sequence numbers findable."""
    rows = [(seq, terms(text)) for seq, text in texts]
    connection.executemany(
        f"INSERT INTO keywords (rowid, {kind.value}) VALUES (?,?)",
        [(seq, " ".join(found)) for seq, found in rows],
    )
    connection.executemany(
        "INSERT INTO keyword_lengths VALUES (?,?)", [(seq, len(found)) for seq, found in rows]
    )


def remove(connection: sqlite3.Connection, sequences: Iterable[int]) -> None:
    """Forget rows."""
    rows = [(seq,) for seq in sequences]
    connection.executemany("DELETE FROM keywords WHERE rowid=?", rows)
    connection.executemany("DELETE FROM keyword_lengths WHERE seq=?", rows)


def fill(connection: sqlite3.Connection) -> None:
    """Take in every segment of the store, into tables that are empty."""
    for kind in EmbeddingType:
        last = 0
        while True:
            rows = connection.execute(
                "SELECT seq, text FROM segments NOT INDEXED "
                "WHERE seq>? AND embedding_type=? ORDER BY seq LIMIT ?",
                (last, kind.value, _ROWS_AT_ONCE),
            ).fetchall()
            if not rows:
                break
            add(connection, kind, rows)
            last = rows[-1][0]


def lengths_after(connection: sqlite3.Connection, sequence: int) -> tuple[Numbers, Numbers]:
    """Sequence numbers above this one, ascending, and how many terms each row has."""
    found = connection.execute(
        "SELECT seq, terms FROM keyword_lengths WHERE seq>? ORDER BY seq", (sequence,)
    ).fetchall()
    return _columns(found)


def places(connection: sqlite3.Connection, kind: EmbeddingType, term: str) -> Places:
    """Where the rows of a type have a term."""
    found = connection.execute(
        "SELECT doc, offset FROM keyword_places WHERE term=? AND col=?", (term, kind.value)
    ).fetchall()
    return _columns(found)


def places_after(
    connection: sqlite3.Connection, kind: EmbeddingType, term: str, sequence: int
) -> Places:
    """As `places`, of rows with higher sequence numbers than this one."""
    found = connection.execute(
        f"SELECT rowid, {kind.value} FROM keywords WHERE keywords MATCH ? AND rowid>?",
        (f'{kind.value} : "{term}"', sequence),
    )
    return _columns(
        [
            (seq, position)
            for seq, joined in found
            for position, each in enumerate(joined.split(" "))
            if each == term
        ]
    )


def _columns(rows: Sequence[tuple[int, int]]) -> tuple[Numbers, Numbers]:
    columns = np.array(rows, np.int64).reshape(-1, 2)
    return columns[:, 0].copy(), columns[:, 1].copy()
