"""Which segments travel together: calls with many segments of one media item."""

from collections.abc import Iterator
from dataclasses import dataclass

from deployments.backfill.file_progress import FileProgress
from deployments.core.segments import EmbeddingType, Id, Segment, Upsert

SEGMENTS_PER_CALL = 100
CHARS_PER_CALL = 1_000_000
"""Of a call's segments: within the 4 MiB of a message between replicas, unless set otherwise."""

WINDOW = 2000
"""Segments that wait for company, so that rows of several media items may alternate."""
WINDOW_CHARS = 32_000_000
"""Of all segments that wait."""


@dataclass(frozen=True, slots=True)
class Item:
    """A segment on its way, and the row that it was: the `index`th of its file, from 0.

    `raw` is the row for people, `chars` about how long the segment is in a message.
    """

    media_item_id: Id
    segment: Segment
    progress: FileProgress
    index: int
    number: int
    raw: str
    chars: int

    @property
    def media_item(self) -> str:
        """The media item's name: 1 and "1" are one."""
        return str(self.media_item_id)


@dataclass(frozen=True, slots=True)
class Call:
    """Segments of one media item, each with an id of its own."""

    items: tuple[Item, ...]
    replace: bool = False

    @property
    def media_item(self) -> str:
        """The media item's name."""
        return self.items[0].media_item

    @property
    def names(self) -> frozenset[str]:
        """The ids of its segments."""
        return frozenset(str(item.segment.id) for item in self.items)

    def upsert(self, embedding_type: EmbeddingType) -> Upsert:
        """The call as the service's value."""
        return Upsert(
            embedding_type,
            self.items[0].media_item_id,
            tuple(item.segment for item in self.items),
            replace=self.replace,
        )

    def parts(self, size: int) -> list["Call"]:
        """The same segments in calls of at most `size` that replace nothing."""
        starts = range(0, len(self.items), size)
        return [Call(self.items[start : start + size]) for start in starts]

    def conflicts_with(self, other: "Call") -> bool:
        """Whether it matters which of the two is stored first."""
        if self.media_item != other.media_item:
            return False
        return self.replace or other.replace or not self.names.isdisjoint(other.names)


class CallGroups:
    """Collects segments into calls; each media item's segments keep their order."""

    def __init__(self) -> None:
        self._open: dict[str, list[Item]] = {}
        self._names: dict[str, set[str]] = {}
        self._chars: dict[str, int] = {}
        self._waiting = 0
        self._waiting_chars = 0

    def add(self, item: Item) -> Iterator[Call]:
        """Take a segment; yields the calls that are complete then."""
        name, key = str(item.segment.id), item.media_item
        full = self._chars.get(key, 0) + item.chars > CHARS_PER_CALL
        if key in self._open and (full or name in self._names[key]):
            yield self._close(key)
        self._open.setdefault(key, []).append(item)
        self._names.setdefault(key, set()).add(name)
        self._chars[key] = self._chars.get(key, 0) + item.chars
        self._waiting += 1
        self._waiting_chars += item.chars
        if len(self._open[key]) == SEGMENTS_PER_CALL:
            yield self._close(key)
        while self._waiting > WINDOW or self._waiting_chars > WINDOW_CHARS:
            # The media item that waits longest.
            yield self._close(next(iter(self._open)))

    def rest(self) -> Iterator[Call]:
        """What is left."""
        for key in list(self._open):
            yield self._close(key)

    def _close(self, key: str) -> Call:
        items = self._open.pop(key)
        del self._names[key]
        self._waiting_chars -= self._chars.pop(key)
        self._waiting -= len(items)
        return Call(tuple(items))
