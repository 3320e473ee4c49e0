"""The texts of what searches found."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from deployments.core.errors import StoreDamaged
from deployments.core.search import cursors
from deployments.core.search.answers import Answer
from deployments.core.search.keyword_index import MOST_TERMS
from deployments.core.search.ranking import Ranked
from deployments.core.search.row_search import Found
from deployments.core.segments import EmbeddingType, Hit, Id, Search, Segment
from deployments.core.shapes import Position
from deployments.core.storage.analyzer import places_of, query_terms
from deployments.core.storage.segment_rows import segment_from
from deployments.core.storage.store_reader import StoreReader, not_as_written
from deployments.core.storage.stored_rows import is_intact, name_of
from deployments.core.storage.time_order import Neighbours, neighbours
from deployments.core.storage_errors import RESTORE
from deployments.core.vectors.collection import Snapshot


def answers(
    reader: StoreReader,
    snapshots: Mapping[EmbeddingType, Snapshot],
    searches: Sequence[Search],
    found: Sequence[Found],
) -> list[Answer]:
    """The answer to each search from the rows that it found; all texts are read at once.

    `reader` and `snapshots` are of the same commit. Raises StoreDamaged.
    """
    beside = _beside(reader, searches, found)
    wanted: dict[EmbeddingType, set[int]] = {}
    for search, each in zip(searches, found, strict=True):
        wanted.setdefault(search.embedding_type, set()).update(_sequences(each.rows))
    for kind, neighbours_of in beside.items():
        wanted[kind].update(chain.from_iterable(chain(*both) for both in neighbours_of.values()))
    segments: dict[int, tuple[Id, Segment]] = {}
    for kind, sequences in wanted.items():
        segments |= segments_of(reader, kind, snapshots[kind], sorted(sequences))
    return [
        Answer(
            _hits(search, each.rows, segments, beside.get(search.embedding_type, {})),
            each.exhausted,
            *_cursor(search, each.next),
            each.failure,
        )
        for search, each in zip(searches, found, strict=True)
    ]


def _sequences(rows: Sequence[Ranked]) -> Iterator[int]:
    for row in rows:
        yield row.sequence
        yield from (other.sequence for other in row.others or ())


def _beside(
    reader: StoreReader, searches: Sequence[Search], found: Sequence[Found]
) -> dict[EmbeddingType, dict[int, Neighbours]]:
    """The neighbours of all rows whose searches ask for some, as many as the one that asks most."""
    counts: dict[EmbeddingType, dict[int, int]] = {}
    for search, each in zip(searches, found, strict=True):
        if search.context:
            of_kind = counts.setdefault(search.embedding_type, {})
            for sequence in _sequences(each.rows):
                of_kind[sequence] = max(search.context, of_kind.get(sequence, 0))
    return {kind: neighbours(reader, kind, of_kind) for kind, of_kind in counts.items()}


def _hits(
    search: Search,
    rows: Sequence[Ranked],
    segments: Mapping[int, tuple[Id, Segment]],
    beside: Mapping[int, Neighbours],
) -> list[Hit]:
    asked = frozenset(query_terms(search.text)[:MOST_TERMS] if search.highlight else ())
    hits = []
    for row in rows:
        others = row.others
        before, after, highlights = None, None, None
        if search.context:
            earlier, later = beside[row.sequence]
            before = tuple(segments[each][1] for each in earlier[-search.context :])
            after = tuple(segments[each][1] for each in later[: search.context])
        if search.highlight:
            highlights = tuple(places_of(segments[row.sequence][1].text, asked))
        hits.append(
            Hit(
                row.cosine,
                row.sequence,
                *segments[row.sequence],
                row.score,
                row.explanation,
                None if others is None else tuple(_hits(search, others, segments, beside)),
                before,
                after,
                highlights,
            )
        )
    return hits


def _cursor(search: Search, following: Position | None) -> tuple[bool, str | None]:
    if search.shape is None or search.shape.cursor_key is None:
        return False, None
    key = search.shape.cursor_key
    return True, None if following is None else cursors.encoded(key, following)


def segments_of(
    reader: StoreReader, kind: EmbeddingType, snapshot: Snapshot, wanted: Sequence[int]
) -> dict[int, tuple[Id, Segment]]:
    """Media item id and segment of each of these rows of a type.

    Each row is checked together with the vector that the search compared, so that a hit's text
    and its score belong together. Raises StoreDamaged.
    """
    rows = reader.rows(wanted)
    vectors = snapshot.vectors_of(np.array(wanted, np.int64)).astype("<f4", copy=False)
    segments = {}
    for seq, vector in zip(wanted, vectors, strict=True):
        row = rows.get(seq)
        if row is None:
            raise StoreDamaged(f"Row {seq} is in the index but not in the store. {RESTORE}")
        if row[1] != kind or not is_intact(row, vector.tobytes()):
            raise not_as_written(name_of(row))
        segments[seq] = (row[2], segment_from(seq, row[3:8]))
    return segments
