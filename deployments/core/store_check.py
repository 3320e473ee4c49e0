"""Reading a whole store to find what is wrong with it."""

from typing import Any

from .segment_rows import checksum
from .storage_errors import translated
from .store_sql import StoreReader

_BLOCK_ROWS = 1000


def problems(reader: StoreReader) -> list[str]:
    """What is wrong with the store, one sentence each; empty if nothing is.

    Reads everything: SQLite's own structures, the checksum of each row and its vector, and that
    each segment has a vector and each vector a segment. A store of 100,000 segments takes
    seconds.
    """
    connection = reader.connection
    found = []
    with translated("Cannot verify the store"):
        for (message,) in connection.execute("PRAGMA integrity_check(100)"):
            if message != "ok":
                found.append(f"SQLite: {message}.")
        for (seq,) in connection.execute(
            "SELECT seq FROM segments WHERE seq NOT IN (SELECT seq FROM vectors)"
        ):
            found.append(f"Row {seq} has no vector.")
        for (seq,) in connection.execute(
            "SELECT seq FROM vectors WHERE seq NOT IN (SELECT seq FROM segments)"
        ):
            found.append(f"Vector {seq} has no segment.")
        rows = connection.execute(
            "SELECT seq, embedding_type, media_item_id, segment_id, text, start_time, end_time, "
            "metadata, text_hash, truncated, checksum, vector "
            "FROM segments JOIN vectors USING (seq) ORDER BY seq"
        )
        while block := rows.fetchmany(_BLOCK_ROWS):
            found.extend(_damaged(row) for row in block if not _is_whole(row))
    return found


def _is_whole(row: tuple[Any, ...]) -> bool:
    seq, embedding_type, *fields, truncated, mark, vector = row
    return bool(checksum(seq, embedding_type, fields, bool(truncated), vector) == mark)


def _damaged(row: tuple[Any, ...]) -> str:
    seq, embedding_type, media_item_id, segment_id, *_ = row
    return (
        f"Row {seq} ({embedding_type}, media item {media_item_id!r}, segment {segment_id!r}) is "
        "not what was written: its checksum differs."
    )
