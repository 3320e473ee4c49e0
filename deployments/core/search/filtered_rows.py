"""The rows of each type that match a filter, read from the store once and then kept."""

import math
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

import numpy as np

from deployments.core.errors import DeadlineExceeded
from deployments.core.filters import And, Column, Filter, IdIn, bytes_of
from deployments.core.search.filter_sql import FilterSql
from deployments.core.segments import EmbeddingType
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage_errors import translated
from deployments.core.vectors.collection import Snapshot
from deployments.core.vectors.main_part import Sequences

_MOST_BYTES = 32_000_000
_MOST_FILTERS = 256
_STEPS_BETWEEN_LOOKS = 100_000  # of SQLite, some milliseconds


@dataclass(frozen=True, slots=True)
class _Matching:
    """What a reader of a commit found: `sequences`, ascending, of rows up to `read_to`.

    `size` is how many bytes it takes to keep, with the filter.
    """

    commit_id: int
    read_to: int
    sequences: Sequences
    size: int


class FilteredRows:
    """The rows that match the filters that were asked for lately; safe in any thread.

    A row never changes and the numbers of rows only grow, so what matched once is completed by the
    rows that came since; those that are gone are left out by the snapshot that is searched.

    What a row's metadata says is believed here: checking it would need the row's whole text and
    vector. A damaged row may so be left out, which the check of the whole store finds, but never
    be a result, since each result is checked as a whole. Where damage keeps the metadata from
    being read, StoreDamaged is raised.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[EmbeddingType, Filter], _Matching] = OrderedDict()
        self._bytes = 0

    def among(
        self,
        reader: StoreReader,
        kind: EmbeddingType,
        snapshot: Snapshot,
        wanted: Filter,
        until: float = math.inf,
    ) -> Snapshot:
        """The snapshot with those rows only that match; `reader` is of the same commit.

        Raises DeadlineExceeded if that isn't known at `until`, in seconds of `time.monotonic`.
        """
        commit_id = reader.commit_id()
        with self._lock:
            known = self._known.get((kind, wanted))
            if known is not None:
                self._known.move_to_end((kind, wanted))
        if known is not None and known.commit_id > commit_id:
            # It may lack rows that were deleted since.
            known = None
        if known is None or known.commit_id < commit_id:
            known = _read(reader, kind, wanted, known, commit_id, until)
            self._keep((kind, wanted), known)
        return snapshot.restricted_to(known.sequences)

    def _keep(self, key: tuple[EmbeddingType, Filter], found: _Matching) -> None:
        with self._lock:
            before = self._known.pop(key, None)
            if before is not None:
                self._bytes -= before.size
                if before.commit_id > found.commit_id:
                    found = before
            self._known[key] = found
            self._bytes += found.size
            while len(self._known) > _MOST_FILTERS or (
                self._bytes > _MOST_BYTES and len(self._known) > 1
            ):
                _, forgotten = self._known.popitem(last=False)
                self._bytes -= forgotten.size


def _read(
    reader: StoreReader,
    kind: EmbeddingType,
    wanted: Filter,
    known: _Matching | None,
    commit_id: int,
    until: float,
) -> _Matching:
    sql = FilterSql(wanted, first=3)
    read_to = 0 if known is None else known.read_to
    # Without a hint SQLite goes through an index and from there to each row, which is slower than
    # the table in its own order unless the index names the few rows that count.
    hint = "INDEXED BY segments_by_name" if _names_media(wanted) else "NOT INDEXED"
    with translated("Cannot filter the segments of the store"), _stopped(reader, kind, until):
        rows = reader.connection.execute(
            f"SELECT seq FROM segments {hint} "
            f"WHERE embedding_type=?1 AND seq>?2 AND {sql.condition}",
            (kind.value, read_to, *sql.parameters),
        ).fetchall()
    found = np.fromiter((seq for (seq,) in rows), np.int64, len(rows))
    found.sort()
    sequences = found if known is None else np.concatenate([known.sequences, found])
    size = sequences.nbytes + bytes_of(wanted)
    return _Matching(commit_id, reader.last_sequence(), sequences, size)


@contextmanager
def _stopped(reader: StoreReader, kind: EmbeddingType, until: float) -> Iterator[None]:
    """Stop what SQLite does inside once it is late."""
    reader.connection.set_progress_handler(lambda: monotonic() > until, _STEPS_BETWEEN_LOOKS)
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        raise DeadlineExceeded(
            f"the filter took too long over all {kind} segments; name media items in it "
            "(media_item_id), or ask for less of the metadata"
        ) from None
    finally:
        reader.connection.set_progress_handler(None, 0)


def _names_media(wanted: Filter) -> bool:
    """Whether only segments of media items that the filter names can match."""
    match wanted:
        case IdIn(Column.MEDIA_ITEM_ID):
            return True
        case And(parts):
            return any(_names_media(part) for part in parts)
    return False
