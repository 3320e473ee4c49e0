"""Finding every row of a damaged store that is provably what was stored, changing nothing.

A row is proven by its checksum, which covers the row and its vector. It is found by walking the
table itself around what can't be read; the store's indices tell which rows there should be. A
vector that can't be read in the store is taken from the checkpoint, and proven in the same way.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.core.damage import Salvage
from deployments.core.durable_files import Disk
from deployments.core.errors import StoreDamaged
from deployments.core.folders.folder_view import FolderView
from deployments.core.segments import EmbeddingType
from deployments.core.storage.commit_mark import CommitMark
from deployments.core.storage.row_walk import RowWalk
from deployments.core.storage.stored_rows import COLUMNS, Row, is_intact
from deployments.core.vectors import checkpoint
from deployments.core.vectors.checkpoint import Checkpoint, Stamp
from deployments.core.vectors.exact_search import UNIT_TOLERANCE

_ANY = 2**62
_MEDIA_ITEMS = 20
_INDICES = ("segments_by_name", "segments_by_text")

Numbers = npt.NDArray[np.int64]


def nothing_is_provable(folder: Path, error: StoreDamaged) -> StoreDamaged:
    """The error for a store whose header, definitions or model can't be read."""
    return StoreDamaged(
        f"Nothing in {folder} can be proven to be what was stored, so there is nothing to salvage: "
        f"{error.detail}"
    )


class DamagedStore:
    """The store of a folder, read as far as that is possible."""

    def __init__(self, view: FolderView) -> None:
        self.view = view
        self._connection = view.reader.connection
        # Text that isn't UTF-8 must not end a walk: no row with such a text is intact.
        self._connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        self._checkpoints = self._load_checkpoints()
        self._named = [self._named_by(index) for index in _INDICES]
        self._intact: list[int] = []
        self._damaged: list[int] = []
        self._walked_all = True

    def rows(self) -> Iterator[tuple[Row, bytes]]:
        """Each intact row, ascending by number, with its vector as little-endian float32."""
        self._intact, self._damaged = [], []
        walk = RowWalk(self._between, self._alone)
        is_named = self._is_named()
        for *row, vector in walk.rows(self._numbers()):
            if not is_named(row[0]):
                continue
            proven = self._proven_vector(row, vector)
            if proven is None:
                self._damaged.append(row[0])
            else:
                self._intact.append(row[0])
                yield tuple(row), proven
        self._walked_all = walk.complete

    def _is_named(self) -> Callable[[int], bool]:
        """Tells rows from what a damaged page links to, such as old versions on free pages."""
        if not any(complete for _, complete in self._named):
            return lambda _: True
        names = frozenset(np.concatenate([numbers for numbers, _ in self._named]).tolist())
        return names.__contains__

    def salvage(self) -> Salvage:
        """What `rows` found when it was read to its end."""
        intact = np.array(self._intact, np.int64)
        named = [numbers for numbers, _ in self._named]
        lost = np.setdiff1d(np.unique(np.concatenate([*named, self._damaged])), intact)
        counted = self._walked_all and any(complete for _, complete in self._named)
        newest = max(
            [
                CommitMark(self.view.folder, self.view.store_id).read(),
                *(each.stamp.commit_id for each in self._checkpoints.values()),
            ]
        )
        return Salvage(
            len(intact),
            len(lost),
            counted,
            max(0, newest - self.view.commit_id),
            self._media_items(lost) if len(lost) else (),
        )

    def _load_checkpoints(self) -> dict[EmbeddingType, Checkpoint]:
        view, found = self.view, {}
        for kind in EmbeddingType:
            stamp = Stamp(
                kind.value,
                view.models[kind].fingerprint,
                view.models[kind].dimension,
                0,
                _ANY,
                view.store_id,
                _ANY,
            )
            loaded = checkpoint.load(checkpoint.path_of(view.folder, kind), stamp, Disk())
            if isinstance(loaded, Checkpoint):
                found[kind] = loaded
        return found

    def _named_by(self, index: str) -> tuple[Numbers, bool]:
        """The rows that an index names, as far as it can be read, and whether that is its end."""
        numbers: list[int] = []
        try:
            for (seq,) in self._connection.execute(f"SELECT seq FROM segments INDEXED BY {index}"):
                numbers.append(seq)
        except (sqlite3.Error, UnicodeDecodeError):
            return np.unique(np.array(numbers, np.int64)), False
        return np.unique(np.array(numbers, np.int64)), True

    def _numbers(self) -> Sequence[int]:
        """The numbers that rows have or may have, ascending."""
        named = np.unique(np.concatenate([numbers for numbers, _ in self._named]))
        try:
            last = self.view.reader.last_sequence()
        except StoreDamaged:
            last = 0
        last = max(1, last, int(named[-1]) if len(named) else 0)
        if not any(complete for _, complete in self._named):
            return range(1, last + 1)
        # Both ends, for rows that no index names.
        ends = np.array([1, last], np.int64)
        return np.union1d(named[named > 0], ends).tolist()

    def _between(self, first: int, last: int) -> Iterator[Row]:
        return self._connection.execute(
            f"SELECT {COLUMNS}, vector FROM segments NOT INDEXED LEFT JOIN vectors USING (seq) "
            "WHERE segments.seq BETWEEN ? AND ? ORDER BY segments.seq",
            (first, last),
        )

    def _alone(self, sequence: int) -> Row | None:
        """A row that a walk can't read, read by itself, and its vector, if that can be read.

        A cursor steps on to the next row, and into its page, before it gives out the last one.
        """
        row = self._one(f"SELECT {COLUMNS} FROM segments NOT INDEXED WHERE seq=?", sequence)
        if row is None:
            return None
        vector = self._one("SELECT vector FROM vectors WHERE seq=?", sequence)
        return (*row, *(vector or (None,)))

    def _one(self, statement: str, sequence: int) -> Row | None:
        try:
            row: Row | None = self._connection.execute(statement, (sequence,)).fetchone()
        except (sqlite3.Error, UnicodeDecodeError):
            return None
        return row

    def _proven_vector(self, row: Sequence[Any], stored: object) -> bytes | None:
        for vector in (stored, self._vector_of_checkpoint(row)):
            if (
                isinstance(vector, bytes)
                and is_intact(row, vector)
                and self._is_unit(row[1], vector)
            ):
                return vector
        return None

    def _vector_of_checkpoint(self, row: Sequence[Any]) -> bytes | None:
        if row[1] not in self._checkpoints:
            return None
        loaded = self._checkpoints[EmbeddingType(row[1])]
        position = int(np.searchsorted(loaded.sequences, row[0]))
        if position == len(loaded.sequences) or loaded.sequences[position] != row[0]:
            return None
        return loaded.vectors[position].astype("<f4", copy=False).tobytes()

    def _is_unit(self, kind: str, vector: bytes) -> bool:
        if kind not in list(EmbeddingType):
            return False
        if len(vector) != 4 * self.view.models[EmbeddingType(kind)].dimension:
            return False
        values = np.frombuffer(vector, "<f4").astype(np.float64)
        return bool(abs(np.sqrt(values @ values) - 1) <= 2 * UNIT_TOLERANCE)

    def _media_items(self, lost: Numbers) -> tuple[str, ...]:
        wanted, found = set(lost.tolist()), dict[str, None]()
        try:
            for seq, media_item in self._connection.execute(
                "SELECT seq, CAST(media_item_id AS TEXT) FROM segments INDEXED BY segments_by_name"
            ):
                if seq in wanted:
                    found.setdefault(str(media_item).encode("utf-8", "replace").decode())
                    if len(found) == _MEDIA_ITEMS:
                        break
        except (sqlite3.Error, UnicodeDecodeError):
            pass
        return tuple(found)
