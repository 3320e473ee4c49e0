"""The texts of what searches found."""

from collections.abc import Mapping, Sequence

import numpy as np

from deployments.core import cursors
from deployments.core.answers import Answer
from deployments.core.collection import Snapshot
from deployments.core.errors import StoreDamaged
from deployments.core.ranking import Ranked
from deployments.core.row_search import Found
from deployments.core.segment_rows import segment_from
from deployments.core.segments import EmbeddingType, Hit, Id, Search, Segment
from deployments.core.shapes import Position
from deployments.core.storage_errors import RESTORE
from deployments.core.store_sql import StoreReader, not_as_written
from deployments.core.stored_rows import is_intact, name_of


def answers(
    reader: StoreReader,
    snapshots: Mapping[EmbeddingType, Snapshot],
    searches: Sequence[Search],
    found: Sequence[Found],
) -> list[Answer]:
    """The answer to each search from the rows that it found; all texts are read at once.

    `reader` and `snapshots` are of the same commit. Raises StoreDamaged.
    """
    wanted: dict[EmbeddingType, set[int]] = {}
    for search, each in zip(searches, found, strict=True):
        sequences = wanted.setdefault(search.embedding_type, set())
        for row in each.rows:
            sequences.add(row.sequence)
            sequences.update(other.sequence for other in row.others or ())
    segments: dict[int, tuple[Id, Segment]] = {}
    for kind, sequences in wanted.items():
        segments |= segments_of(reader, kind, snapshots[kind], sorted(sequences))
    return [
        Answer(
            [_hit(row, segments) for row in each.rows],
            each.exhausted,
            *_cursor(search, each.next),
        )
        for search, each in zip(searches, found, strict=True)
    ]


def _hit(row: Ranked, segments: Mapping[int, tuple[Id, Segment]]) -> Hit:
    others = row.others
    return Hit(
        row.cosine,
        row.sequence,
        *segments[row.sequence],
        row.score,
        row.explanation,
        None if others is None else tuple(_hit(other, segments) for other in others),
    )


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
