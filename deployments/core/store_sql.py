"""The statements that read and change segments, inside a transaction that someone else began."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.core.errors import StoreDamaged
from deployments.core.segment_rows import SegmentRow, StoredRow, checksum, segment_from
from deployments.core.segments import EmbeddingType, Id, Segment, Vectors
from deployments.core.storage_errors import translated

_CHUNK = 1000  # parameters of one IN (…)


def _chunks(values: Sequence[Any]) -> Iterator[tuple[Sequence[Any], str]]:
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK]
        yield chunk, ",".join("?" * len(chunk))


class StoreReader:
    """A view of the store at one moment. Sequence numbers are positive integers."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def commit_id(self) -> int:
        """How many writing transactions there were before this view."""
        with translated("Cannot read the store"):
            row = self.connection.execute("SELECT value FROM meta WHERE key='commit_id'")
            return int(row.fetchone()[0])

    def last_sequence(self) -> int:
        """The highest sequence number ever given, 0 in a new store."""
        with translated("Cannot read the store"):
            row = self.connection.execute(
                "SELECT seq FROM sqlite_sequence WHERE name='segments'"
            ).fetchone()
        return 0 if row is None else int(row[0])

    def sequences(self, embedding_type: EmbeddingType) -> npt.NDArray[np.int64]:
        """Sequence numbers of all segments of a type, int64, ascending."""
        with translated("Cannot read the store"):
            # The index alone answers this; the table's pages, with the texts, stay on the disk.
            rows = self.connection.execute(
                "SELECT seq FROM segments INDEXED BY segments_by_name WHERE embedding_type=?",
                (embedding_type.value,),
            )
            found = np.fromiter((row[0] for row in rows), dtype=np.int64)
        found.sort()
        return found

    def vectors(self, sequences: Sequence[int], dimension: int) -> Vectors:
        """The vectors of these rows, shape (rows, dimension), in the order of `sequences`.

        Raises StoreDamaged if one is missing, has another length, or isn't finite.
        """
        blobs = self.vector_blobs(sequences)
        wrong = [seq for seq in sequences if len(blobs.get(seq, b"")) != 4 * dimension]
        if wrong:
            raise StoreDamaged(
                f"The store has no vector of {dimension} dimensions for {len(wrong)} of its "
                f"segments, first for row {wrong[0]}. Restore the folder from a backup."
            )
        joined = b"".join([blobs[seq] for seq in sequences])
        vectors = np.frombuffer(joined, dtype="<f4").reshape(len(sequences), dimension)
        return vectors.astype(np.float32, copy=False)

    def vector_blobs(self, sequences: Sequence[int]) -> dict[int, bytes]:
        """The vectors of these rows as little-endian float32; rows without one are left out."""
        blobs: dict[int, bytes] = {}
        with translated("Cannot read vectors from the store"):
            for chunk, marks in _chunks(sequences):
                blobs.update(
                    self.connection.execute(
                        f"SELECT seq, vector FROM vectors WHERE seq IN ({marks})", chunk
                    )
                )
        return blobs

    def segments(self, sequences: Sequence[int]) -> dict[int, tuple[Id, Segment]]:
        """Media item id and segment of each of these rows; absent rows are left out."""
        found: dict[int, tuple[Id, Segment]] = {}
        with translated("Cannot read segments from the store"):
            for chunk, marks in _chunks(sequences):
                for seq, media_item_id, *fields in self.connection.execute(
                    "SELECT seq, media_item_id, segment_id, text, start_time, end_time, metadata "
                    f"FROM segments WHERE seq IN ({marks})",
                    chunk,
                ):
                    found[seq] = (media_item_id, segment_from(seq, fields))
        return found


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
        with translated("Cannot read the store"):
            for chunk, marks in _chunks(segment_keys):
                for row in self.connection.execute(
                    "SELECT seq, media_item_id, segment_id, start_time, end_time, metadata, "
                    "text_hash, truncated FROM segments INDEXED BY segments_by_name "
                    "WHERE embedding_type=? AND CAST(media_item_id AS TEXT)=? "
                    f"AND CAST(segment_id AS TEXT) IN ({marks})",
                    (embedding_type.value, media_key, *chunk),
                ):
                    found[str(row[2])] = StoredRow(*row)
        return found

    def rows_of_texts(
        self, embedding_type: EmbeddingType, media_key: str, hashes: Sequence[bytes]
    ) -> dict[bytes, tuple[int, bool]]:
        """For each text that the media item has: the newest row with it, and its truncation."""
        found: dict[bytes, tuple[int, bool]] = {}
        with translated("Cannot read the store"):
            for chunk, marks in _chunks(hashes):
                for hashed, seq, truncated in self.connection.execute(
                    "SELECT text_hash, max(seq), truncated FROM segments "
                    "INDEXED BY segments_by_text "
                    "WHERE embedding_type=? AND CAST(media_item_id AS TEXT)=? "
                    f"AND text_hash IN ({marks}) GROUP BY text_hash",
                    (embedding_type.value, media_key, *chunk),
                ):
                    found[hashed] = (seq, bool(truncated))
        return found

    def rows_of_media(self, embedding_type: EmbeddingType, media_key: str) -> dict[str, int]:
        """Sequence numbers of all the media item's segments of a type, by the key of their id."""
        with translated("Cannot read the store"):
            return dict(
                self.connection.execute(
                    "SELECT CAST(segment_id AS TEXT), seq FROM segments "
                    "INDEXED BY segments_by_name "
                    "WHERE embedding_type=? AND CAST(media_item_id AS TEXT)=?",
                    (embedding_type.value, media_key),
                ).fetchall()
            )

    def delete(self, sequences: Iterable[int]) -> None:
        """Remove rows and their vectors."""
        rows = [(seq,) for seq in sequences]
        if not rows:
            return
        self.changed = True
        with translated("Cannot delete from the store"):
            self.connection.executemany("DELETE FROM segments WHERE seq=?", rows)
            self.connection.executemany("DELETE FROM vectors WHERE seq=?", rows)

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
        self.next_sequence += len(rows)
        return list(range(first, self.next_sequence))
