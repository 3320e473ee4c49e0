"""Finding what is wrong with a store's standby vectors."""

import sqlite3
from collections.abc import Iterator

from deployments.core.storage import schema_sql
from deployments.core.storage.standby import MARKED_COLUMNS
from deployments.core.storage.stored_rows import is_intact, name_of

_STRAY = """
SELECT seq, 'has no segment' FROM standby_marks WHERE seq NOT IN (SELECT seq FROM segments)
UNION SELECT seq, 'has no segment' FROM standby_vectors
    WHERE seq NOT IN (SELECT seq FROM segments)
UNION SELECT seq, 'has no mark' FROM standby_vectors
    WHERE seq NOT IN (SELECT seq FROM standby_marks)
UNION SELECT seq, 'is missing' FROM standby_marks
    WHERE seq NOT IN (SELECT seq FROM standby_vectors)
"""


def standby_flaws(connection: sqlite3.Connection) -> Iterator[str]:
    """One sentence for each standby vector that isn't what was stored."""
    (version,) = connection.execute("SELECT value FROM meta WHERE key='format'").fetchone()
    if version < schema_sql.STANDBY_SINCE:
        return
    for seq, flaw in connection.execute(_STRAY):
        yield f"Standby vector {seq} {flaw}."
    dimensions = dict(connection.execute("SELECT embedding_type, dimension FROM standby_models"))
    for *row, vector in connection.execute(
        f"SELECT {MARKED_COLUMNS}, vector FROM segments JOIN standby_marks AS marks USING (seq) "
        "JOIN standby_vectors USING (seq) ORDER BY seq"
    ):
        if not is_intact(row, vector) or len(vector) != 4 * dimensions.get(row[1], 0):
            yield f"The standby vector of {name_of(row)} is not what was written."
