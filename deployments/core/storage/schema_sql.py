"""The tables of store.sqlite3 and how older versions of them become the current one."""

FORMAT = 4
"""Version of the tables that this code reads and writes."""

KEYWORDS_SINCE = 4
"""The version whose keyword tables have the terms of today's analyser."""

FILLS_KEYWORDS = (2, KEYWORDS_SINCE)
"""The versions that begin with tables of keywords, filled from the segments."""

PAGE_BYTES = 8192
"""Holds five vectors of 384 dimensions; in SQLite's usual 4096 bytes a third would be wasted."""

_FIRST = """
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

_KEYWORDS = """
-- The analyser's terms of each text, in the column of its type. The tokenizer takes the terms as
-- they come: between spaces.
CREATE VIRTUAL TABLE keywords USING fts5(
    transcript, frame, clip, columnsize=0, tokenize="ascii tokenchars '&+-./:'''"
);

-- Shows every place of every term in `keywords`, and keeps nothing of its own.
CREATE VIRTUAL TABLE keyword_places USING fts5vocab(keywords, instance);

CREATE TABLE keyword_lengths (
    seq INTEGER PRIMARY KEY,
    terms INTEGER NOT NULL
) STRICT;
"""

_STANDBY = """
-- A second vector of each segment, of another model, that can take the first one's place.
CREATE TABLE standby_vectors (
    seq INTEGER PRIMARY KEY,
    vector BLOB NOT NULL
) STRICT;

-- What a row of `segments` has with its standby vector instead.
CREATE TABLE standby_marks (
    seq INTEGER PRIMARY KEY,
    truncated INTEGER NOT NULL,
    checksum BLOB NOT NULL
) STRICT;

CREATE TABLE standby_models (
    embedding_type TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    dimension INTEGER NOT NULL
) STRICT;

-- Models whose vectors were exchanged for those of another one.
CREATE TABLE former_models (
    embedding_type TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    PRIMARY KEY (embedding_type, fingerprint)
) STRICT, WITHOUT ROWID;
"""

STANDBY_SINCE = 3
"""The version that brought the standby tables."""

_NO_KEYWORDS = """
DELETE FROM keywords;

DELETE FROM keyword_lengths;
"""

MIGRATIONS: dict[int, str] = {1: _KEYWORDS, 2: _STANDBY, 3: _NO_KEYWORDS}
"""For each older version the statements that lead to the next one."""


def script(version: int = FORMAT) -> str:
    """The statements that make the tables of a version."""
    later = [MIGRATIONS[older] for older in range(1, version)]
    return "".join([_FIRST, *later])


def statements(script: str) -> list[str]:
    """The script's statements; none of them has a semicolon within."""
    return [statement for statement in script.split(";") if statement.strip()]
