"""The tables of store.sqlite3 and how older versions of them become the current one."""

FORMAT = 1
"""Version of the tables that this code reads and writes."""

PAGE_BYTES = 8192
"""Holds five vectors of 384 dimensions; in SQLite's usual 4096 bytes a third would be wasted."""

CREATE = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE models (
    embedding_type TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    dimension INTEGER NOT NULL
) STRICT;

-- A changed row is a new row: seq names one version of a segment and of its vector for ever.
CREATE TABLE segments (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    embedding_type TEXT NOT NULL,
    media_item_id ANY NOT NULL,
    segment_id ANY NOT NULL,
    text TEXT NOT NULL,
    start_time ANY,
    end_time ANY,
    metadata TEXT NOT NULL,
    text_hash BLOB NOT NULL,
    truncated INTEGER NOT NULL,
    checksum BLOB NOT NULL
) STRICT;

-- 1 and "1" are the same name.
CREATE UNIQUE INDEX segments_by_name ON segments (
    embedding_type, CAST(media_item_id AS TEXT), CAST(segment_id AS TEXT)
);

-- Finds the vector of a text that moved to another segment.
CREATE INDEX segments_by_text ON segments (
    embedding_type, CAST(media_item_id AS TEXT), text_hash
);

-- Apart, so that reading texts doesn't drag vectors through the page cache.
CREATE TABLE vectors (
    seq INTEGER PRIMARY KEY,
    vector BLOB NOT NULL
) STRICT;
"""

MIGRATIONS: dict[int, str] = {}
"""For each older version the statements that lead to the next one."""


def statements(script: str) -> list[str]:
    """The script's statements; none of them has a semicolon within."""
    return [statement for statement in script.split(";") if statement.strip()]
