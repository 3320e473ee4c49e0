"""Keyword search in the rows of one type: the postings that queries need, read from the store."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deployments.core.errors import StoreDamaged
from deployments.core.search import bm25
from deployments.core.search.bm25 import Postings, Rows, Rowset, Scores
from deployments.core.segments import EmbeddingType
from deployments.core.storage import keyword_sql
from deployments.core.storage.analyzer import query_terms
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage_errors import RESTORE, translated
from deployments.core.vectors.ascending import look_up
from deployments.core.vectors.collection import Snapshot
from deployments.core.vectors.main_part import Sequences

Terms = Sequence[str]

MOST_TERMS = 128
"""Of a longer query the first ones count."""

_MOST_PLACES = 5_000_000
_FEW_ROWS = 1000


@dataclass(frozen=True, slots=True)
class KeywordScores:
    """The BM25 scores of all rows for one query: `sequences` int64 ascending, `scores` float64."""

    sequences: Sequences
    scores: Scores

    def best(self, count: int) -> Sequences:
        """Sequence numbers of the `count` best rows with any of the terms, best first.

        Equal scores are ordered by sequence number.
        """
        rows = np.flatnonzero(self.scores)
        found = self.scores[rows]
        if len(rows) > count:
            least = np.partition(found, len(found) - count)[len(found) - count]
            rows, found = rows[found >= least], found[found >= least]
        order = np.argsort(-found, kind="stable")[:count]
        return self.sequences[rows[order]]

    def among(self, sequences: Sequences) -> "KeywordScores":
        """Those of these rows alone, which ascend and are there."""
        return KeywordScores(sequences, self.of(sequences))

    def of(self, sequences: Sequences) -> Scores:
        """The scores of these rows, which are there."""
        scores: Scores = self.scores[np.searchsorted(self.sequences, sequences)]
        return scores


class Overtaken(Exception):
    """Another thread has read a later commit: what a reader of an older one needs may be gone."""


class KeywordIndex:
    """The postings of terms that were asked for, and every row's length; safe in any thread.

    Rows never change and their numbers only grow: what was read once is completed by the rows that
    came since, and rows that are gone are left out by the snapshot that is searched.
    """

    def __init__(self, kind: EmbeddingType) -> None:
        self._kind = kind
        self._lock = threading.Lock()
        self._commit_id = -1
        self._forget()

    def _forget(self) -> None:
        self._read_to = 0
        self._sequences: Sequences = np.empty(0, np.int64)
        self._lengths: Scores = np.empty(0)
        self._postings: OrderedDict[str, tuple[Postings, int]] = OrderedDict()
        self._places = 0
        self._rowset: tuple[Snapshot | None, Rowset | None] = (None, None)

    def search(
        self, reader: StoreReader, snapshot: Snapshot, queries: Sequence[tuple[Terms, int | None]]
    ) -> list[KeywordScores]:
        """The scores of a snapshot's rows for the terms of each query.

        With a sequence number beside the terms, later rows are as if they weren't there. `reader`
        and `snapshot` are of the same commit. Raises StoreDamaged, and Overtaken.
        """
        with self._lock, translated("Cannot search for keywords"):
            commit_id = reader.commit_id()
            if commit_id < self._commit_id:
                raise Overtaken
            if commit_id > self._commit_id:
                self._extend(reader, snapshot)
                self._commit_id = commit_id
            rowset = self._rows_of(snapshot)
            sequences, lengths = self._sequences, self._lengths
            found = [{term: self._find(reader, term) for term in query} for query, _ in queries]
            self._evict()
        rowsets: dict[int | None, Rowset] = {None: rowset}
        for until in {until for _, until in queries if until is not None}:
            rowsets[until] = Rowset.of(rowset.live & (sequences <= until), lengths)
        return [
            KeywordScores(sequences, bm25.scores(rowsets[until], query, postings))
            for (query, until), postings in zip(queries, found, strict=True)
        ]

    def _extend(self, reader: StoreReader, snapshot: Snapshot) -> None:
        """Take in the rows that came since."""
        if len(self._sequences) > 2 * len(snapshot) + _FEW_ROWS:
            self._forget()  # most of it is of rows that are gone
        first = int(np.searchsorted(snapshot.sequences, self._read_to, side="right"))
        new = snapshot.live_among(snapshot.sequences[first:])
        sequences, lengths = keyword_sql.lengths_after(reader.connection, self._read_to)
        positions, known = look_up(new, sequences)
        if not known.all():
            raise StoreDamaged(f"The store has no keywords of row {new[~known][0]}. {RESTORE}")
        if len(new) > max(_FEW_ROWS, len(self._sequences) // 4):
            # To read all of a term at once is faster by the row than to add to it.
            self._postings.clear()
            self._places = 0
        self._sequences = np.concatenate([self._sequences, new])
        self._lengths = np.concatenate([self._lengths, lengths[positions].astype(np.float64)])
        if len(sequences):
            self._read_to = int(sequences[-1])

    def _rows_of(self, snapshot: Snapshot) -> Rowset:
        known, rowset = self._rowset
        if known is not snapshot or rowset is None or len(rowset.live) != len(self._sequences):
            live = np.zeros(len(self._sequences), bool)
            live[np.searchsorted(self._sequences, snapshot.live_sequences())] = True
            rowset = Rowset.of(live, self._lengths)
            self._rowset = (snapshot, rowset)
        return rowset

    def _find(self, reader: StoreReader, term: str) -> Postings:
        known = self._postings.pop(term, None)
        if known is None:
            places = keyword_sql.places(reader.connection, self._kind, term)
            postings = Postings.of(self._keys(*places))
            self._places += len(postings.keys)
        else:
            postings, read_to = known
            if read_to < self._read_to:
                places = keyword_sql.places_after(reader.connection, self._kind, term, read_to)
                if len(places[0]):
                    postings = Postings.of(np.concatenate([postings.keys, self._keys(*places)]))
                    self._places += len(places[0])
        self._postings[term] = (postings, self._read_to)
        return postings

    def _keys(self, sequences: Sequences, positions: Rows) -> Rows:
        rows, known = look_up(sequences, self._sequences)
        if not known.all():
            raise StoreDamaged(
                f"The store has keywords of row {sequences[~known][0]}, which isn't there. "
                f"{RESTORE}"
            )
        return bm25.keys_of(rows, positions)

    def _evict(self) -> None:
        while self._places > _MOST_PLACES and len(self._postings) > 1:
            _, (postings, _) = self._postings.popitem(last=False)
            self._places -= len(postings.keys)


class KeywordIndexes:
    """Keyword search in the rows of all types."""

    def __init__(self) -> None:
        self._indexes = {kind: KeywordIndex(kind) for kind in EmbeddingType}

    def search(
        self,
        reader: StoreReader,
        kind: EmbeddingType,
        snapshot: Snapshot,
        texts: Sequence[tuple[str, int | None]],
    ) -> list[KeywordScores]:
        """The scores of a snapshot's rows for each text; see KeywordIndex.search."""
        queries = [(query_terms(text)[:MOST_TERMS], until) for text, until in texts]
        return self._indexes[kind].search(reader, snapshot, queries)
