"""A second vector for each segment, of another model, that can take the first one's place.

The tables `standby_vectors` and `standby_models` have the form of `vectors` and `models`, so the
two change places by changing names. Of a row of `segments`, `truncated` and `checksum` depend on
the vector; `standby_marks` has those that go with the standby one. A row's text never changes, so
what is here of a row is right for as long as the row is there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from deployments.core.errors import InvalidInput, NotReady, StoreDamaged
from deployments.core.segments import EmbeddingType, ModelIdentity, Models
from deployments.core.storage.segment_rows import checksum, is_own
from deployments.core.storage.store_reader import StoreReader, chunks, not_as_written
from deployments.core.storage.store_writer import StoreWriter
from deployments.core.storage.stored_rows import COLUMNS, is_intact, name_of
from deployments.core.storage_errors import RESTORE, translated

_MARKS = "standby_marks (seq, truncated, checksum)"

MARKED_COLUMNS = COLUMNS.replace("truncated, checksum", "marks.truncated, marks.checksum")
"""COLUMNS of a row with its standby vector, where `marks` is standby_marks."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """A segment that has no standby vector yet."""

    sequence: int
    embedding_type: EmbeddingType
    text: str
    is_own: bool
    """Whether its vector isn't that of its text, so that no model can make one from that."""


@dataclass(frozen=True, slots=True)
class StandbyVector:
    """A row's vector of the standby model, little-endian float32, and whether its text was cut."""

    sequence: int
    vector: bytes
    truncated: bool


class StandbyReader(StoreReader):
    """A reader to which the standby vectors are the vectors."""

    def sequences_between(
        self, embedding_type: EmbeddingType, after: int, until: int
    ) -> npt.NDArray[np.int64]:
        """Sequence numbers of a type's segments above one and up to another, int64, ascending."""
        with translated("Cannot read the store"):
            rows = self.connection.execute(
                "SELECT seq FROM segments NOT INDEXED "
                "WHERE seq > ? AND seq <= ? AND embedding_type = ? ORDER BY seq",
                (after, until, embedding_type.value),
            ).fetchall()
        return np.array(rows, np.int64).reshape(-1)

    def proven_blobs(
        self, embedding_type: EmbeddingType, sequences: Sequence[int]
    ) -> dict[int, bytes]:
        """As StoreReader's. Raises StoreDamaged."""
        blobs: dict[int, bytes] = {}
        with translated("Cannot read the standby vectors"):
            for chunk, marks in chunks(sequences):
                for *row, vector in self.connection.execute(
                    f"SELECT {MARKED_COLUMNS}, vector FROM segments "
                    "JOIN standby_marks AS marks USING (seq) JOIN standby_vectors USING (seq) "
                    f"WHERE seq IN ({marks})",
                    chunk,
                ):
                    if row[1] != embedding_type or not is_intact(row, vector):
                        raise not_as_written(f"With its standby vector, {name_of(row)}")
                    blobs[row[0]] = vector
        lost = next((seq for seq in sequences if seq not in blobs), None)
        if lost is not None:
            raise StoreDamaged(f"Row {lost} has no standby vector. {RESTORE}")
        return blobs


def changing(present: Models, target: Models) -> list[EmbeddingType]:
    """The types whose model becomes another one."""
    return [kind for kind in EmbeddingType if not target[kind].makes_the_same_as(present[kind])]


def models(reader: StoreReader) -> dict[EmbeddingType, ModelIdentity]:
    """The standby vectors' model of each type; none if there are no standby vectors."""
    return reader.models("standby_models")


def begin(writer: StoreWriter, target: Models) -> None:
    """Replace whatever is on standby by vectors of these models, none of which are there yet."""
    end(writer)
    with translated("Cannot write to the store"):
        writer.connection.executemany(
            "INSERT INTO standby_models VALUES (?,?,?,?)",
            [
                (kind.value, one.name, one.fingerprint, one.dimension)
                for kind, one in target.items()
            ],
        )


def end(writer: StoreWriter) -> None:
    """Remove all that is on standby."""
    writer.changed = True
    with translated("Cannot delete from the store"):
        for table in ("standby_vectors", "standby_marks", "standby_models"):
            writer.connection.execute(f"DELETE FROM {table}")


def counts(reader: StoreReader) -> tuple[int, int]:
    """How many segments have a standby vector, and how many there are."""
    with translated("Cannot read the store"):
        done, rows = reader.connection.execute(
            "SELECT (SELECT count(*) FROM standby_marks), (SELECT count(*) FROM segments)"
        ).fetchone()
    return done, rows


def lacking(reader: StoreReader, after: int, count: int) -> list[Lacking]:
    """The next `count` segments behind a sequence number that have no standby vector, ascending.

    Raises StoreDamaged for one that isn't what was stored.
    """
    with translated("Cannot read the store"):
        rows = reader.connection.execute(
            f"SELECT {COLUMNS}, vector FROM segments LEFT JOIN vectors USING (seq) "
            "WHERE seq > ? AND seq NOT IN (SELECT seq FROM standby_marks) ORDER BY seq LIMIT ?",
            (after, count),
        ).fetchall()
    for *row, vector in rows:
        if not is_intact(row, vector):
            raise not_as_written(name_of(row))
    return [Lacking(row[0], EmbeddingType(row[1]), row[4], is_own(row[8])) for row in rows]


def add(writer: StoreWriter, target: Models, vectors: Iterable[StandbyVector]) -> int:
    """Keep standby vectors of these models; returns how many.

    Rows that are gone are left out; so are all, if another model is on standby by now. Raises
    StoreDamaged for a row that isn't what was stored, InvalidInput for a vector of another length.
    """
    if models(writer) != dict(target):
        return 0
    rest, added = iter(vectors), 0
    while block := {one.sequence: one for one in islice(rest, 1000)}:
        found = []
        with translated("Cannot read the store"):
            for chunk, marks in chunks(list(block)):
                found += writer.connection.execute(
                    f"SELECT {COLUMNS}, vector FROM segments LEFT JOIN vectors USING (seq) "
                    f"WHERE seq IN ({marks})",
                    chunk,
                ).fetchall()
        new = []
        for *row, vector in found:
            if not is_intact(row, vector):
                raise not_as_written(name_of(row))
            seq, kind, *fields, _, _ = row
            one = block[seq]
            if len(one.vector) != 4 * target[EmbeddingType(kind)].dimension:
                raise InvalidInput(f"a standby vector of {kind} has {len(one.vector)} bytes.")
            mark = checksum(seq, kind, fields, one.truncated, one.vector)
            new.append((seq, one.truncated, mark, one.vector))
        _insert(writer, new)
        added += len(new)
    return added


def copy(writer: StoreWriter, target: Models, sequences: Sequence[int]) -> int:
    """As `add`, with the vectors that these rows have: for types whose model stays the same."""
    own = dict(writer.models())
    vectors = []
    rows = writer.rows(sequences)
    blobs = writer.vector_blobs(sequences)
    for seq, row in rows.items():
        kind = EmbeddingType(row[1])
        if seq in blobs and own[kind].makes_the_same_as(target[kind]):
            vectors.append(StandbyVector(seq, blobs[seq], bool(row[-2])))
    return add(writer, target, vectors)


def _insert(writer: StoreWriter, rows: Sequence[tuple[int, bool, bytes, bytes]]) -> None:
    if not rows:
        return
    writer.changed = True
    with translated("Cannot write to the store"):
        writer.connection.executemany(
            f"INSERT OR REPLACE INTO {_MARKS} VALUES (?,?,?)", [row[:3] for row in rows]
        )
        writer.connection.executemany(
            "INSERT OR REPLACE INTO standby_vectors VALUES (?,?)",
            [(row[0], row[3]) for row in rows],
        )


_EXCHANGE = (
    "INSERT OR IGNORE INTO former_models SELECT embedding_type, fingerprint FROM models",
    "ALTER TABLE vectors RENAME TO exchanged_vectors",
    "ALTER TABLE standby_vectors RENAME TO vectors",
    "ALTER TABLE exchanged_vectors RENAME TO standby_vectors",
    "ALTER TABLE models RENAME TO exchanged_models",
    "ALTER TABLE standby_models RENAME TO models",
    "ALTER TABLE exchanged_models RENAME TO standby_models",
    "ALTER TABLE standby_marks RENAME TO exchanged_marks",
    "CREATE TABLE standby_marks "
    "(seq INTEGER PRIMARY KEY, truncated INTEGER NOT NULL, checksum BLOB NOT NULL) STRICT",
    f"INSERT INTO {_MARKS} SELECT seq, truncated, checksum FROM segments ORDER BY seq",
    "UPDATE segments SET (truncated, checksum) = "
    "(SELECT truncated, checksum FROM exchanged_marks WHERE exchanged_marks.seq = segments.seq)",
    "DROP TABLE exchanged_marks",
)


def exchange(writer: StoreWriter) -> None:
    """Let the standby vectors and models change places with the others.

    Raises NotReady, and changes nothing, if a segment has no standby vector.
    """
    with translated("Cannot read the store"):
        (complete,) = writer.connection.execute(
            "SELECT NOT EXISTS (SELECT 1 FROM segments INDEXED BY segments_by_name WHERE "
            "seq NOT IN (SELECT seq FROM standby_marks) OR seq NOT IN (SELECT seq FROM "
            "standby_vectors)) AND EXISTS (SELECT 1 FROM standby_models)"
        ).fetchone()
    if not complete:
        raise NotReady("The vectors of the other model aren't complete.")
    writer.changed = True
    with translated("Cannot exchange the vectors of the store"):
        for statement in _EXCHANGE:
            writer.connection.execute(statement)
