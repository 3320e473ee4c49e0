"""The statements that change segments, inside a transaction that someone else began."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from deployments.core.segments import EmbeddingType
from deployments.core.storage import keyword_sql
from deployments.core.storage.segment_rows import SegmentRow, StoredRow, checksum
from deployments.core.storage.store_reader import StoreReader, chunks, not_as_written
from deployments.core.storage_errors import translated


class StoreWriter(StoreReader):
    """What a writing transaction can do, on top of reading."""

    def __init__(
        self, connection: sqlite3.Connection, next_sequence: int, *, changed: bool = False
    ) -> None:
        super().__init__(connection)
        self.next_sequence = next_sequence
        self.changed = changed
        self._broken = False

    @property
    def intact(self) -> bool:
        """Whether the transaction can go on: what failed inside a savepoint was undone."""
        return self.connection.in_transaction and not self._broken

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what was done inside if it raises."""
        with translated("Cannot write to the store"):
            self.connection.execute("SAVEPOINT operation")
        changed = self.changed
        try:
            yield
        except BaseException:
            self._undo(changed)
            raise
        with translated("Cannot write to the store"):
            self.connection.execute("RELEASE operation")

    def _undo(self, changed: bool) -> None:
        try:
            # After a full disk SQLite may have undone the whole transaction by itself.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK TO operation")
                self.connection.execute("RELEASE operation")
                self.changed = changed
        except sqlite3.Error:
            self._broken = True

    def existing(
        self, embedding_type: EmbeddingType, media_key: str, segment_keys: Sequence[str]
    ) -> dict[str, StoredRow]:
        """Those of the media item's segments that are stored, by the key of their id."""
        found: dict[str, StoredRow] = {}
        wanted = set(segment_keys)
        with translated("Cannot read the store"):
            for chunk, marks in chunks(segment_keys):
                for row in self.connection.execute(
                    "SELECT seq, media_item_id, segment_id, start_time, end_time, metadata, "
                    "text_hash, truncated FROM segments INDEXED BY segments_by_name "
                    "WHERE embedding_type=? AND CAST(media_item_id AS TEXT)=? "
                    f"AND CAST(segment_id AS TEXT) IN ({marks})",
                    (embedding_type.value, media_key, *chunk),
                ):
                    key = str(row[2])
                    if str(row[1]) != media_key or key not in wanted:
                        raise not_as_written(f"Row {row[0]}, or what an index says of it,")
                    found[key] = StoredRow(*row)
        return found

    def rows_of_texts(
        self, embedding_type: EmbeddingType, media_key: str, hashes: Sequence[bytes]
    ) -> dict[bytes, tuple[int, bool]]:
        """For each text that the media item has: the newest row with it, and its truncation."""
        found: dict[bytes, tuple[int, bool]] = {}
        with translated("Cannot read the store"):
            for chunk, marks in chunks(hashes):
                for hashed, seq, truncated in self.connection.execute(
                    "SELECT text_hash, max(seq), truncated FROM segments "
                    "INDEXED BY segments_by_text "
                    "WHERE embedding_type=? AND CAST(media_item_id AS TEXT)=? "
                    f"AND text_hash IN ({marks}) GROUP BY text_hash",
                    (embedding_type.value, media_key, *chunk),
                ):
                    found[hashed] = (seq, bool(truncated))
        return found

    def delete(self, sequences: Iterable[int]) -> None:
        """Remove rows, all their vectors and their keywords."""
        rows = [(seq,) for seq in sequences]
        if not rows:
            return
        self.changed = True
        with translated("Cannot delete from the store"):
            self.connection.executemany("DELETE FROM segments WHERE seq=?", rows)
            for table in ("vectors", "standby_vectors", "standby_marks"):
                self.connection.executemany(f"DELETE FROM {table} WHERE seq=?", rows)
            keyword_sql.remove(self.connection, (seq for (seq,) in rows))

    def insert(
        self, embedding_type: EmbeddingType, rows: Sequence[tuple[SegmentRow, bytes, bool]]
    ) -> list[int]:
        """Add rows, each with its vector (little-endian float32) and whether it was truncated.

        Returns their sequence numbers, ascending.
        """
        if not rows:
            return []
        self.changed = True
        first = self.next_sequence
        segments, vectors = [], []
        for seq, (row, vector, truncated) in enumerate(rows, first):
            fields = (
                row.media_item_id,
                row.segment_id,
                row.text,
                row.start_time,
                row.end_time,
                row.metadata,
                row.text_hash,
            )
            mark = checksum(seq, embedding_type.value, fields, truncated, vector)
            segments.append((seq, embedding_type.value, *fields, truncated, mark))
            vectors.append((seq, vector))
        with translated("Cannot write to the store"):
            self.connection.executemany(
                "INSERT INTO segments VALUES (?,?,?,?,?,?,?,?,?,?,?)", segments
            )
            self.connection.executemany("INSERT INTO vectors VALUES (?,?)", vectors)
            texts = ((seq, row.text) for seq, (row, _, _) in enumerate(rows, first))
            keyword_sql.add(self.connection, embedding_type, texts)
        self.next_sequence += len(rows)
        return list(range(first, self.next_sequence))
