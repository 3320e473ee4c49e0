"""Whether the store's keyword tables have what its segments say, and nothing else."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence

from deployments.core.segments import EmbeddingType
from deployments.core.storage import schema_sql
from deployments.core.storage.analyzer import terms
from deployments.core.storage.segment_rows import text_hash

_Sums = tuple[int, int, int]
"""How many places a term has in a column, and two sums that tell these from others."""


def keyword_flaws(connection: sqlite3.Connection) -> Iterator[str]:
    """What is wrong, one sentence each. Reads all texts and the whole index of terms."""
    if not _have_keywords(connection):
        return
    expected: dict[tuple[str, str], _Sums] = defaultdict(lambda: (0, 0, 0))
    yield from _rows(connection, expected)
    for table, column in (("keywords", "rowid"), ("keyword_lengths", "seq")):
        for (seq,) in connection.execute(
            f"SELECT {column} FROM {table} WHERE {column} NOT IN (SELECT seq FROM segments)"
        ):
            yield f"The store has keywords of row {seq}, which isn't there."
    yield from _places(connection, expected)


def row_flaws(connection: sqlite3.Connection, sequences: Sequence[int]) -> Iterator[str]:
    """As `keyword_flaws`, of these rows and the tables alone."""
    if _have_keywords(connection):
        marks = ",".join("?" * len(sequences))
        for row in _joined(connection, f"WHERE segments.seq IN ({marks})", sequences):
            yield from _flaws(*row)


def _rows(connection: sqlite3.Connection, expected: dict[tuple[str, str], _Sums]) -> Iterator[str]:
    for row in _joined(connection, "ORDER BY segments.seq"):
        yield from _flaws(*row)
        seq, kind, *_, joined = row
        here = next((each for each in joined if isinstance(each, str)), "")
        for position, term in enumerate(here.split(), 1):
            count, rows, places = expected[term, kind]
            expected[term, kind] = (count + 1, rows + seq, places + seq * position)


_Row = tuple[int, str, object, object, object, list[object]]
"""Sequence number, type, text, its hash, number of terms, and what the columns have."""


def _joined(
    connection: sqlite3.Connection, which: str, parameters: Sequence[int] = ()
) -> Iterator[_Row]:
    columns = ", ".join(f"keywords.{kind.value}" for kind in EmbeddingType)
    for seq, kind, text, hashed, length, *joined in connection.execute(
        f"SELECT segments.seq, embedding_type, text, text_hash, terms, {columns} "
        "FROM segments NOT INDEXED LEFT JOIN keyword_lengths USING (seq) "
        f"LEFT JOIN keywords ON keywords.rowid=segments.seq {which}",
        parameters,
    ):
        yield seq, kind, text, hashed, length, joined


def _flaws(
    seq: int, kind: str, text: object, hashed: object, length: object, joined: list[object]
) -> Iterator[str]:
    # The keywords of a damaged text are not wrong; its checksum tells.
    if isinstance(text, str) and isinstance(hashed, bytes) and hashed.startswith(text_hash(text)):
        found = terms(text)
        due = [" ".join(found) if kind == each else None for each in EmbeddingType]
        if joined != due or length != len(found):
            yield f"The keywords of row {seq} aren't those of its text."


def _places(
    connection: sqlite3.Connection, expected: dict[tuple[str, str], _Sums]
) -> Iterator[str]:
    wrong = 0
    for term, column, *sums in connection.execute(
        "SELECT term, col, count(*), sum(doc), sum(doc * (offset + 1)) FROM keyword_places "
        "GROUP BY term, col"
    ):
        wrong += expected.pop((term, column), None) != tuple(sums)
    wrong += len(expected)
    if wrong:
        yield f"The index of keywords is wrong about {wrong} of its terms."


def _have_keywords(connection: sqlite3.Connection) -> bool:
    (version,) = connection.execute("SELECT value FROM meta WHERE key='format'").fetchone()
    return bool(version >= schema_sql.KEYWORDS_SINCE)
