"""Lists of what is stored: media items, and the segments of one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from deployments.core.errors import NotFound
from deployments.core.search.hydration import segments_of
from deployments.core.search.one_commit import Snapshots
from deployments.core.segments import EmbeddingType, Id, Segment
from deployments.core.storage.segment_rows import key_of
from deployments.core.storage.store_reader import StoreReader, not_as_written
from deployments.core.storage.time_order import TimeKey, time_keys_after, time_span
from deployments.core.storage_errors import translated


@dataclass(frozen=True, slots=True)
class MediaList:
    """A page of `limit` media items with segments of a type, or of any, in the order of their ids
    as text, from behind `after` on."""

    limit: int
    embedding_type: EmbeddingType | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class MediaItem:
    """A media item, in the form that its id was last stored in, and its segments by type."""

    id: Id
    segments: dict[EmbeddingType, int]


@dataclass(frozen=True, slots=True)
class MediaPage:
    """Media items, and behind which one the next page begins, if there is one."""

    items: list[MediaItem]
    next: str | None


@dataclass(frozen=True, slots=True)
class SegmentList:
    """A page of `limit` segments of a media item, of a type or of all, in the order of their times,
    those without any last, from behind `after` on."""

    media_item_id: Id
    limit: int
    embedding_type: EmbeddingType | None = None
    after: TimeKey | None = None


@dataclass(frozen=True, slots=True)
class ListedSegment:
    """A stored segment."""

    embedding_type: EmbeddingType
    media_item_id: Id
    segment: Segment


@dataclass(frozen=True, slots=True)
class SegmentPage:
    """Segments, and behind which one the next page begins, if there is one.

    `span` is the first and the last time of all segments on all pages, None where none has one.
    """

    segments: list[ListedSegment]
    next: TimeKey | None
    span: tuple[float | None, float | None]


def media_page(reader: StoreReader, wanted: MediaList) -> MediaPage:
    """The page. Raises StoreDamaged."""
    kinds = list(EmbeddingType) if wanted.embedding_type is None else [wanted.embedding_type]
    limit = wanted.limit + 1
    keys = sorted({key for kind in kinds for key in _keys(reader, kind, wanted.after, limit)})
    shown = keys[: wanted.limit]
    counts: dict[str, dict[EmbeddingType, int]] = {
        key: dict.fromkeys(EmbeddingType, 0) for key in shown
    }
    newest: dict[str, int] = {}
    for key, kind, count, sequence in _counts(reader, shown):
        counts[key][kind] = count
        newest[key] = max(sequence, newest.get(key, 0))
    rows = reader.rows(list(newest.values()))
    items = []
    for key in shown:
        row = rows.get(newest[key])
        if row is None or str(row[2]) != key:
            raise not_as_written(f"Row {newest[key]}, or what an index says of it,")
        items.append(MediaItem(row[2], counts[key]))
    return MediaPage(items, shown[-1] if len(keys) > wanted.limit else None)


def _keys(reader: StoreReader, kind: EmbeddingType, after: str | None, limit: int) -> Iterator[str]:
    # One step of the index for each media item, however many segments it has.
    first = (
        "SELECT min(CAST(media_item_id AS TEXT)) FROM segments INDEXED BY segments_by_name "
        "WHERE embedding_type=?"
    )
    following = f"{first} AND CAST(media_item_id AS TEXT)>?"
    last = after
    with translated("Cannot list the media items of the store"):
        for _ in range(limit):
            if last is None:
                row = reader.connection.execute(first, (kind.value,)).fetchone()
            else:
                row = reader.connection.execute(following, (kind.value, last)).fetchone()
            (last,) = row
            if last is None:
                return
            yield last


def _counts(
    reader: StoreReader, keys: Sequence[str]
) -> Iterator[tuple[str, EmbeddingType, int, int]]:
    with translated("Cannot list the media items of the store"):
        for key in keys:
            for kind in EmbeddingType:
                count, newest = reader.connection.execute(
                    "SELECT count(*), max(seq) FROM segments INDEXED BY segments_by_name "
                    "WHERE embedding_type=? AND CAST(media_item_id AS TEXT)=?",
                    (kind.value, key),
                ).fetchone()
                if count:
                    yield key, kind, count, newest


def segment_page(reader: StoreReader, snapshots: Snapshots, wanted: SegmentList) -> SegmentPage:
    """The page; `reader` and `snapshots` are of the same commit. Raises NotFound, StoreDamaged."""
    key = key_of(wanted.media_item_id)
    kinds = list(EmbeddingType) if wanted.embedding_type is None else [wanted.embedding_type]
    following = {
        kind: time_keys_after(reader, kind, key, wanted.after, wanted.limit + 1) for kind in kinds
    }
    listed = sorted(chain.from_iterable(following.values()))
    if not listed and not any(
        time_keys_after(reader, kind, key, None, 1) for kind in EmbeddingType
    ):
        raise NotFound(f"there is no media item {wanted.media_item_id!r}")
    shown = listed[: wanted.limit]
    found = {}
    for kind in kinds:
        of_kind = set(following[kind])
        rows = sorted(each[2] for each in shown if each in of_kind)
        for sequence, segment in segments_of(reader, kind, snapshots[kind], rows).items():
            found[sequence] = ListedSegment(kind, *segment)
    return SegmentPage(
        [found[sequence] for _, _, sequence in shown],
        shown[-1] if len(listed) > wanted.limit else None,
        time_span(reader, kinds, key),
    )
