"""The statements that read segments, inside a transaction that someone else began."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.core.errors import StoreDamaged
from deployments.core.segments import EmbeddingType, ModelIdentity, Vectors
from deployments.core.storage.stored_rows import COLUMNS, Row, is_intact, name_of
from deployments.core.storage_errors import RESTORE, translated

_CHUNK = 1000  # parameters of one IN (…)


def chunks(values: Sequence[Any]) -> Iterator[tuple[Sequence[Any], str]]:
    """The values, so many at a time as a statement can take, and the marks for an IN (…)."""
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

    def models(self, table: str = "models") -> dict[EmbeddingType, ModelIdentity]:
        """The model of each type's vectors."""
        with translated("Cannot read the store"):
            rows = self.connection.execute(
                f"SELECT embedding_type, name, fingerprint, dimension FROM {table}"
            ).fetchall()
        return {EmbeddingType(kind): ModelIdentity(*model) for kind, *model in rows}

    def last_sequence(self) -> int:
        """The highest sequence number ever given, 0 in a new store."""
        with translated("Cannot read the store"):
            row = self.connection.execute(
                "SELECT seq FROM sqlite_sequence WHERE name='segments'"
            ).fetchone()
        return 0 if row is None else int(row[0])

    def sequences(self, embedding_type: EmbeddingType) -> npt.NDArray[np.int64]:
        """Sequence numbers of all segments of a type, int64, ascending.

        Raises StoreDamaged if the two indices of the store don't name the same rows: what was
        damaged in one alone can't hide a row, or show one that isn't there.
        """
        # The indices alone answer this; the table's pages, with the texts, stay on the disk.
        by_name = self._sequences_by("segments_by_name", embedding_type)
        by_text = self._sequences_by("segments_by_text", embedding_type)
        if not np.array_equal(by_name, by_text):
            differing = np.setxor1d(by_name, by_text)
            raise StoreDamaged(
                f"The indices of the store differ in their {embedding_type} rows, {len(by_name)} "
                f"and {len(by_text)}{f', first row {differing[0]}' if len(differing) else ''}. "
                f"{RESTORE}"
            )
        if len(by_name) and (by_name[0] < 1 or by_name[-1] > self.last_sequence()):
            raise StoreDamaged(
                f"The store has {embedding_type} rows {by_name[0]} to {by_name[-1]}, but says that "
                f"it gave numbers from 1 to {self.last_sequence()} only. {RESTORE}"
            )
        return by_name

    def _sequences_by(self, index: str, embedding_type: EmbeddingType) -> npt.NDArray[np.int64]:
        with translated("Cannot read the store"):
            rows = self.connection.execute(
                f"SELECT seq FROM segments INDEXED BY {index} WHERE embedding_type=?",
                (embedding_type.value,),
            )
            found = np.fromiter((row[0] for row in rows), dtype=np.int64)
        found.sort()
        return found

    def vectors(self, sequences: Sequence[int], dimension: int) -> Vectors:
        """The vectors of these rows, shape (rows, dimension), in the order of `sequences`.

        Raises StoreDamaged if one is missing or has another length; for what is in them see
        `proven_vectors`.
        """
        return self._array(self.vector_blobs(sequences), sequences, dimension)

    def proven_vectors(
        self, embedding_type: EmbeddingType, sequences: Sequence[int], dimension: int
    ) -> Vectors:
        """As `vectors`, after reading and checking the whole rows as `proven_blobs` does."""
        return self._array(self.proven_blobs(embedding_type, sequences), sequences, dimension)

    def _array(self, blobs: dict[int, bytes], sequences: Sequence[int], dimension: int) -> Vectors:
        wrong = [seq for seq in sequences if len(blobs.get(seq, b"")) != 4 * dimension]
        if wrong:
            raise StoreDamaged(
                f"The store has no vector of {dimension} dimensions for {len(wrong)} of its "
                f"segments, first for row {wrong[0]}. {RESTORE}"
            )
        joined = b"".join([blobs[seq] for seq in sequences])
        vectors = np.frombuffer(joined, dtype="<f4").reshape(len(sequences), dimension)
        return vectors.astype(np.float32, copy=False)

    def vector_blobs(self, sequences: Sequence[int]) -> dict[int, bytes]:
        """The vectors of these rows as little-endian float32; rows without one are left out."""
        blobs: dict[int, bytes] = {}
        with translated("Cannot read vectors from the store"):
            for chunk, marks in chunks(sequences):
                blobs.update(
                    self.connection.execute(
                        f"SELECT seq, vector FROM vectors WHERE seq IN ({marks})", chunk
                    )
                )
        return blobs

    def proven_blobs(
        self, embedding_type: EmbeddingType, sequences: Sequence[int]
    ) -> dict[int, bytes]:
        """The vectors of these rows of a type as little-endian float32.

        Raises StoreDamaged if a row or its vector is missing or isn't what was stored.
        """
        blobs: dict[int, bytes] = {}
        with translated("Cannot read the store"):
            for chunk, marks in chunks(sequences):
                for *row, vector in self.connection.execute(
                    f"SELECT {COLUMNS}, vector FROM segments JOIN vectors USING (seq) "
                    f"WHERE seq IN ({marks})",
                    chunk,
                ):
                    if row[1] != embedding_type or not is_intact(row, vector):
                        raise not_as_written(name_of(row))
                    blobs[row[0]] = vector
        lost = next((seq for seq in sequences if seq not in blobs), None)
        if lost is not None:
            raise StoreDamaged(f"Row {lost} or its vector is not in the store. {RESTORE}")
        return blobs

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

    def media_keys(self, sequences: Sequence[int]) -> dict[int, str]:
        """The media item's id of each of these rows, as text, unchecked."""
        found: dict[int, str] = {}
        with translated("Cannot read segments from the store"):
            for chunk, marks in chunks(sequences):
                found.update(
                    self.connection.execute(
                        "SELECT seq, CAST(media_item_id AS TEXT) FROM segments "
                        f"WHERE seq IN ({marks})",
                        chunk,
                    )
                )
        return found

    def rows(self, sequences: Sequence[int]) -> dict[int, Row]:
        """COLUMNS of each of these rows, unchecked; absent rows are left out."""
        found: dict[int, Row] = {}
        with translated("Cannot read segments from the store"):
            for chunk, marks in chunks(sequences):
                for row in self.connection.execute(
                    f"SELECT {COLUMNS} FROM segments WHERE seq IN ({marks})", chunk
                ):
                    found[row[0]] = row
        return found


def not_as_written(name: str) -> StoreDamaged:
    """The error for a row whose checksum differs; `name` begins the sentence."""
    return StoreDamaged(f"{name} is not what was written: its checksum differs. {RESTORE}")
