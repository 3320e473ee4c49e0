"""Lists of what is stored, as the JSON that callers get, without its timestamp."""

from deployments.core.api.results import Json, json_of, metadata_of
from deployments.core.search import cursors
from deployments.core.search.media_lists import (
    MediaList,
    MediaPage,
    SegmentList,
    SegmentPage,
)
from deployments.core.segments import EmbeddingType, Id
from deployments.core.storage.segment_rows import key_of
from deployments.core.storage.time_order import TimeKey

_TIME_KEY = ((bool,), (int, float), (int,))


def media_after(cursor: str | None, embedding_type: EmbeddingType | None) -> str | None:
    """Where the page of a cursor begins. Raises InvalidInput."""
    values = cursors.unpacked(cursor or cursors.FIRST, _media_key(embedding_type), (str,))
    return None if values is None else values[0]


def segments_after(
    cursor: str | None, media_item_id: Id, embedding_type: EmbeddingType | None
) -> TimeKey | None:
    """Where the page of a cursor begins. Raises InvalidInput."""
    key = _segments_key(media_item_id, embedding_type)
    values = cursors.unpacked(cursor or cursors.FIRST, key, *_TIME_KEY)
    return None if values is None else (values[0], values[1], values[2])


def media_json(wanted: MediaList, page: MediaPage) -> Json:
    """A MediaResponse."""
    key = _media_key(wanted.embedding_type)
    return json_of(
        {
            "media": [
                {
                    "media_item_id": each.id,
                    "segments": {kind.value: count for kind, count in each.segments.items()},
                }
                for each in page.items
            ],
            "next_cursor": None if page.next is None else cursors.packed(key, page.next),
        }
    )


def segments_json(wanted: SegmentList, page: SegmentPage) -> Json:
    """A SegmentsResponse."""
    key = _segments_key(wanted.media_item_id, wanted.embedding_type)
    return json_of(
        {
            "segments": [
                {
                    "embedding_type": each.embedding_type,
                    "metadata": metadata_of(each.media_item_id, each.segment),
                }
                for each in page.segments
            ],
            "start_time": page.span[0],
            "end_time": page.span[1],
            "next_cursor": None if page.next is None else cursors.packed(key, *page.next),
        }
    )


def _media_key(embedding_type: EmbeddingType | None) -> str:
    return cursors.key_of("media", embedding_type)


def _segments_key(media_item_id: Id, embedding_type: EmbeddingType | None) -> str:
    return cursors.key_of("segments", key_of(media_item_id), embedding_type)
