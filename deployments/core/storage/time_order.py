"""A media item's segments in the order of their times."""

from collections.abc import Sequence

from deployments.core.segments import EmbeddingType
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage_errors import translated

TimeKey = tuple[bool, float | int, int]
"""Whether a segment has no time, its time or 0, and its row: segments are in this order.

The time is that of its start, or of its end if it has no start.
"""

Neighbours = tuple[list[int], list[int]]
"""The rows before and after one, each in the order of their times."""


def time_keys(reader: StoreReader, kind: EmbeddingType, media_key: str) -> list[TimeKey]:
    """The keys of all segments of a media item and type, in no order."""
    with translated("Cannot list the segments of the store"):
        return [
            (time is None, time or 0, sequence)
            for sequence, time in reader.connection.execute(
                "SELECT seq, coalesce(start_time, end_time) FROM segments "
                "INDEXED BY segments_by_name "
                "WHERE embedding_type=? AND CAST(media_item_id AS TEXT)=?",
                (kind.value, media_key),
            )
        ]


def time_span(
    reader: StoreReader, kinds: Sequence[EmbeddingType], media_key: str
) -> tuple[float | None, float | None]:
    """The first and the last time that a media item's segments of these types have, if any."""
    firsts, lasts = [], []
    with translated("Cannot list the segments of the store"):
        for kind in kinds:
            first, last = reader.connection.execute(
                "SELECT min(coalesce(start_time, end_time)), max(coalesce(end_time, start_time)) "
                "FROM segments INDEXED BY segments_by_name "
                "WHERE embedding_type=? AND CAST(media_item_id AS TEXT)=?",
                (kind.value, media_key),
            ).fetchone()
            if first is not None:
                firsts.append(first)
                lasts.append(last)
    return min(firsts, default=None), max(lasts, default=None)


def time_keys_after(
    reader: StoreReader, kind: EmbeddingType, media_key: str, after: TimeKey | None, limit: int
) -> list[TimeKey]:
    """The first `limit` keys of a media item and type behind one, or of all, in their order."""
    place = "(coalesce(start_time, end_time) IS NULL, coalesce(start_time, end_time, 0), seq)"
    behind, bound = ("", ()) if after is None else (f"AND {place} > (?, ?, ?) ", after)
    with translated("Cannot list the segments of the store"):
        return [
            (bool(has_no_time), time, sequence)
            for has_no_time, time, sequence in reader.connection.execute(
                f"SELECT {place[1:-1]} FROM segments INDEXED BY segments_by_name "
                f"WHERE embedding_type=? AND CAST(media_item_id AS TEXT)=? {behind}"
                "ORDER BY 1, 2, 3 LIMIT ?",
                (kind.value, media_key, *bound, limit),
            )
        ]


def neighbours(
    reader: StoreReader, kind: EmbeddingType, counts: dict[int, int]
) -> dict[int, Neighbours]:
    """For each of these rows of a type, so many of those before and after it.

    They are of the row's media item and type; a row without any time has none, and is none.
    """
    of_media: dict[str, list[int]] = {}
    for sequence, media_key in reader.media_keys(list(counts)).items():
        of_media.setdefault(media_key, []).append(sequence)
    found: dict[int, Neighbours] = {}
    for media_key, sequences in of_media.items():
        keys = sorted(time_keys(reader, kind, media_key))
        timed = [sequence for has_no_time, _, sequence in keys if not has_no_time]
        places = {sequence: place for place, sequence in enumerate(timed)}
        for sequence in sequences:
            place, count = places.get(sequence), counts[sequence]
            if place is None:
                found[sequence] = ([], [])
            else:
                before = timed[max(0, place - count) : place]
                found[sequence] = (before, timed[place + 1 : place + 1 + count])
    return found
