"""With `--replace`: calls that hold all segments of a media item."""

from collections.abc import Iterator
from dataclasses import dataclass

from deployments.backfill.calls import Call, Item
from deployments.core.settings import Settings

MOST_SEGMENTS: int = Settings.model_fields["embeddings_max_segments"].default
"""Of a media item: what one request may have, unless the service is set otherwise."""


@dataclass(frozen=True, slots=True)
class Unreplaceable:
    """Segments that can't be sent, and why."""

    items: tuple[Item, ...]
    reason: str


class Replacements:
    """Collects a media item's segments, which have to stand next to each other in the source.

    A media item is replaced in one step or not at all: not if it has more than `MOST_SEGMENTS`,
    and not by what comes of it later. Of two rows with the same id the first one counts.
    """

    def __init__(self) -> None:
        self._media_item: str | None = None
        self._items: dict[str, Item] = {}
        self._too_many = False
        self._seen: set[str] = set()

    def add(self, item: Item) -> Iterator[Call | Unreplaceable]:
        """Take a segment; yields the media item before, if this is another one's."""
        if item.media_item != self._media_item:
            yield from self.rest()
            if item.media_item in self._seen:
                yield Unreplaceable(
                    (item,),
                    f"media_item_id: {item.media_item_id!r} came before, with other rows between; "
                    "rows of a media item that is replaced have to stand next to each other",
                )
                return
            self._media_item = item.media_item
            self._seen.add(item.media_item)
        name = str(item.segment.id)
        if self._too_many:
            yield Unreplaceable((item,), self._reason)
        elif name in self._items:
            first = self._items[name].number
            yield Unreplaceable(
                (item,), f"id: {item.segment.id!r} is the id of row {first} of the media item, too"
            )
        elif len(self._items) == MOST_SEGMENTS:
            self._too_many = True
            yield Unreplaceable((*self._items.values(), item), self._reason)
            self._items = {}
        else:
            self._items[name] = item

    def rest(self) -> Iterator[Call]:
        """What is left."""
        if self._items:
            yield Call(tuple(self._items.values()), replace=True)
        self._clear()

    def abandon(self, reason: str) -> Iterator[Unreplaceable]:
        """What is left, if it may not be the whole media item."""
        if self._items:
            yield Unreplaceable(tuple(self._items.values()), reason)
        self._clear()

    @property
    def _reason(self) -> str:
        return (
            f"media_item_id: {self._media_item} has more than {MOST_SEGMENTS:,} segments, which "
            "can't be replaced in one step; nothing of it was sent. Delete the media item and run "
            "the backfill without --replace"
        )

    def _clear(self) -> None:
        self._media_item, self._items, self._too_many = None, {}, False
