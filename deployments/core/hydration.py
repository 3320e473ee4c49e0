"""The texts of what searches found."""

from collections.abc import Mapping, Sequence

import numpy as np

from deployments.core.answers import Answer
from deployments.core.collection import Snapshot
from deployments.core.errors import StoreDamaged
from deployments.core.ranking import Ranked
from deployments.core.segment_rows import segment_from
from deployments.core.segments import EmbeddingType, Hit, Id, Search, Segment
from deployments.core.storage_errors import RESTORE
from deployments.core.store_sql import StoreReader, not_as_written
from deployments.core.stored_rows import is_intact, name_of


def answers(
    reader: StoreReader,
    snapshots: Mapping[EmbeddingType, Snapshot],
    searches: Sequence[Search],
    found: Sequence[Sequence[Ranked]],
) -> list[Answer]:
    """The answer to each search from the rows that it found; all texts are read at once.

    `reader` and `snapshots` are of the same commit. Raises StoreDamaged.
    """
    wanted: dict[EmbeddingType, set[int]] = {}
    for search, rows in zip(searches, found, strict=True):
        wanted.setdefault(search.embedding_type, set()).update(each.sequence for each in rows)
    segments: dict[int, tuple[Id, Segment]] = {}
    for kind, sequences in wanted.items():
        segments |= _segments(reader, kind, snapshots[kind], sorted(sequences))
    return [
        Answer(
            [
                Hit(
                    each.cosine,
                    each.sequence,
                    *segments[each.sequence],
                    each.score,
                    each.explanation,
                )
                for each in rows
            ],
            exhausted=search.filter is not None and len(rows) < search.top_k,
        )
        for search, rows in zip(searches, found, strict=True)
    ]


def _segments(
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
