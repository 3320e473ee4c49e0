"""One type's vectors in memory, and the unchanging snapshots of them that readers search."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from deployments.core.segments import EmbeddingType, Models, Vectors
from deployments.core.vectors.ascending import look_up
from deployments.core.vectors.exact_search import Rows, Scores, best_rows
from deployments.core.vectors.main_part import MainPart, Sequences
from deployments.core.vectors.two_part_search import best_rows_of_two_parts

_FIRST_CAPACITY = 1024
_COMPACT_SHARE = 0.1
_COMPACT_ROWS = 1000
_BLOCK_ROWS = 16384
_FEW_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows at one moment. Nothing that it refers to changes any more.

    `vectors` is (n, dimension) float32, `sequences` (n,) int64 ascending, `dead` the positions of
    deleted rows among them, int64 ascending. `main`, if there is one, makes searching faster and
    changes no score. `fingerprint` is that of the vectors' model.
    """

    vectors: Vectors
    sequences: Sequences
    dead: Rows
    main: MainPart | None = None
    fingerprint: str = ""

    def __len__(self) -> int:
        """How many rows are not deleted."""
        return len(self.sequences) - len(self.dead)

    def search(
        self, queries: Vectors, count: int, exact: bool = False
    ) -> list[tuple[Scores, Sequences]]:
        """For each query the `count` rows with the highest cosine, best first.

        `queries` is (q, dimension) float32 of unit length. Returns cosines (float64, -1…1) and
        sequence numbers (int64); equal cosines are ordered by sequence number. With `exact`, or
        without a main part, the result is the same for any batch of queries, and for any history
        that led to these rows; else some of the best rows may be missing and the next best be in
        their places.
        """
        if self.main is None or exact:
            found = best_rows(self.vectors, self.dead, queries, count)
        else:
            found = best_rows_of_two_parts(
                self.vectors, self.sequences, self.dead, self.main, queries, count
            )
        return [(cosines, self.sequences[rows]) for cosines, rows in found]

    def live_among(self, sequences: Sequences) -> Sequences:
        """Those of these sequence numbers, ascending, whose rows are here and not deleted."""
        positions, here = look_up(sequences, self.sequences)
        _, deleted = look_up(positions[here], self.dead)
        alive: Sequences = sequences[here][~deleted]
        return alive

    def restricted_to(self, sequences: Sequences) -> "Snapshot":
        """These rows alone, as far as they are here and not deleted, to be scanned.

        `sequences` ascend.
        """
        positions, here = look_up(sequences, self.sequences)
        alive = np.zeros(len(self.sequences), bool)
        alive[positions[here]] = True
        alive[self.dead] = False
        rows = np.flatnonzero(alive)
        if len(rows) < _FEW_SHARE * len(alive):
            # To copy them costs less than to scan the others too.
            return self._scanned(self.vectors[rows], self.sequences[rows], np.empty(0, np.int64))
        return self._scanned(self.vectors, self.sequences, np.flatnonzero(~alive))

    def without(self, sequence: int) -> "Snapshot":
        """All rows but one that is here and not deleted."""
        row = np.searchsorted(self.sequences, sequence)
        return replace(self, dead=np.union1d(self.dead, [row]))

    def until(self, sequence: int) -> "Snapshot":
        """The rows up to a sequence number, to be scanned."""
        rows = int(np.searchsorted(self.sequences, sequence, side="right"))
        dead = self.dead[: np.searchsorted(self.dead, rows)]
        return self._scanned(self.vectors[:rows], self.sequences[:rows], dead)

    def _scanned(self, vectors: Vectors, sequences: Sequences, dead: Rows) -> "Snapshot":
        return Snapshot(vectors, sequences, dead, fingerprint=self.fingerprint)

    def vectors_of(self, sequences: Sequences) -> Vectors:
        """The vectors, (n, dimension), that searches compare for these rows of the snapshot."""
        vectors: Vectors = self.vectors[np.searchsorted(self.sequences, sequences)]
        return vectors

    def live_sequences(self) -> Sequences:
        """Sequence numbers of all rows that are not deleted, ascending."""
        return np.delete(self.sequences, self.dead)

    def blocks(self) -> Iterator[tuple[Sequences, Vectors]]:
        """The rows that are not deleted, some at a time."""
        for start in range(0, len(self.sequences), _BLOCK_ROWS):
            yield self.live(start, start + _BLOCK_ROWS)

    def live(self, start: int, stop: int) -> tuple[Sequences, Vectors]:
        """The rows at positions from `start` to before `stop` that are not deleted, copied."""
        first, last = np.searchsorted(self.dead, [start, stop])
        here = self.dead[first:last] - start
        return (
            np.delete(self.sequences[start:stop], here),
            np.delete(self.vectors[start:stop], here, axis=0),
        )


class Collection:
    """Rows in the order of their sequence numbers, changed by one thread at a time.

    New rows are written behind those that snapshots see, so readers need no lock. The buffers grow
    by half; pages of theirs that no row was written to take no memory.
    """

    def __init__(self, dimension: int, fingerprint: str = "") -> None:
        self._dimension = dimension
        self._fingerprint = fingerprint
        self._vectors: Vectors = np.empty((0, dimension), np.float32)
        self._sequences: Sequences = np.empty(0, np.int64)
        self._rows = 0
        self._dead: Rows = np.empty(0, np.int64)
        self._main: MainPart | None = None
        self.snapshot = self._take_snapshot()

    def adopt(self, main: MainPart | None) -> Snapshot:
        """Search with another main part, or without one; its rows must be of this collection."""
        self._main = main
        self.snapshot = self._take_snapshot()
        return self.snapshot

    def reserve(self, rows: int) -> None:
        """Make room for `rows` rows in all, so that adding them copies nothing."""
        if rows > len(self._sequences):
            self._move(self._rows, max(rows, _FIRST_CAPACITY))

    def change(self, removed: Sequences, sequences: Sequences, vectors: Vectors) -> Snapshot:
        """Delete rows and add rows, and return the snapshot of the result.

        `sequences` must ascend and exceed all there are, `vectors` be (len(sequences), dimension)
        float32 of unit length. Raises ValueError otherwise, or if a removed row isn't there.
        """
        last = self._sequences[self._rows - 1] if self._rows else -1
        if len(sequences) and (sequences[0] <= last or np.any(np.diff(sequences) <= 0)):
            raise ValueError(f"sequence numbers must ascend from above {last}")
        if vectors.shape != (len(sequences), self._dimension):
            raise ValueError(
                f"vectors are {vectors.shape}, not {(len(sequences), self._dimension)}"
            )
        dead = self._positions(removed)
        rows = self._rows + len(sequences)
        if rows > len(self._sequences):
            self._move(self._rows, max(rows, _FIRST_CAPACITY, len(self._sequences) * 3 // 2))
        self._vectors[self._rows : rows] = vectors
        self._sequences[self._rows : rows] = sequences
        self._rows = rows
        if len(dead):
            self._dead = np.union1d(self._dead, dead)
            if len(self._dead) > max(_COMPACT_ROWS, _COMPACT_SHARE * rows):
                self._compact()
        self.snapshot = self._take_snapshot()
        return self.snapshot

    def _positions(self, sequences: Sequences) -> Rows:
        known = self._sequences[: self._rows]
        positions = np.searchsorted(known, sequences)
        there = positions < self._rows
        if not np.all(there) or np.any(known[positions] != sequences):
            raise ValueError("a removed row isn't there")
        if np.isin(positions, self._dead).any():
            raise ValueError("a removed row was deleted before")
        return positions

    def _move(self, rows: int, capacity: int) -> None:
        # Old snapshots keep the old buffers alive for as long as they are searched.
        vectors = np.empty((capacity, self._dimension), np.float32)
        sequences = np.empty(capacity, np.int64)
        vectors[:rows] = self._vectors[:rows]
        sequences[:rows] = self._sequences[:rows]
        self._vectors, self._sequences = vectors, sequences

    def _compact(self) -> None:
        before = self._take_snapshot()
        self._vectors = np.empty((len(self._sequences), self._dimension), np.float32)
        self._sequences = np.empty(len(self._sequences), np.int64)
        self._rows = 0
        self._dead = np.empty(0, np.int64)
        for sequences, vectors in before.blocks():
            rows = self._rows + len(sequences)
            self._vectors[self._rows : rows] = vectors
            self._sequences[self._rows : rows] = sequences
            self._rows = rows

    def _take_snapshot(self) -> Snapshot:
        return Snapshot(
            self._vectors[: self._rows],
            self._sequences[: self._rows],
            self._dead,
            self._main,
            self._fingerprint,
        )


Collections = dict[EmbeddingType, Collection]


def empty_collections(models: Models) -> Collections:
    """A collection for each type's vectors."""
    return {kind: Collection(one.dimension, one.fingerprint) for kind, one in models.items()}
