"""With `--replace`: calls that hold all segments of a media item."""

from collections.abc import Iterator
from dataclasses import dataclass

from deployments.backfill.calls import Call, Item
from deployments.core.segments import Id
from deployments.core.settings import Settings

MOST_SEGMENTS: int = Settings.model_fields["embeddings_max_segments"].default
MOST_CHARS: int = Settings.model_fields["embeddings_max_body_bytes"].default
"""Of a media item: what one request may have, unless the service is set otherwise."""


@dataclass(frozen=True, slots=True)
class Unreplaceable:
    """Segments that can't be sent, and why."""

    items: tuple[Item, ...]
    reason: str


class Replacements:
    """Collects a media item's segments, which have to stand next to each other in the source.

    A media item is replaced in one step or not at all: not if it has more than `MOST_SEGMENTS` or
    `MOST_CHARS`, not if a row is missing that may be one of it, and not by what comes of it later.
    Of two rows with the same id the first one counts.
    """

    def __init__(self) -> None:
        self._media_item: str | None = None
        self._items: dict[str, Item] = {}
        self._chars = 0
        self._obstacle: str | None = None
        self._missing: str | None = None
        self._seen: set[str] = set()

    def add(self, item: Item) -> Iterator[Call | Unreplaceable]:
        """Take a segment; yields the media item before, if this is another one's."""
        yield from self._begin(item.media_item_id)
        name = str(item.segment.id)
        if self._obstacle is not None:
            yield Unreplaceable((item,), self._obstacle)
        elif name in self._items:
            first = self._items[name].number
            yield Unreplaceable(
                (item,), f"id: {item.segment.id!r} is the id of row {first} of the media item, too"
            )
        elif len(self._items) == MOST_SEGMENTS:
            yield from self._refuse(item, f"more than {MOST_SEGMENTS:,} segments")
        elif self._chars + item.chars > MOST_CHARS:
            yield from self._refuse(item, f"segments of more than {MOST_CHARS:,} characters")
        else:
            self._items[name] = item
            self._chars += item.chars

    def pass_over(self, media_item_id: Id) -> Iterator[Call | Unreplaceable]:
        """Take note of a row that an earlier run has done; yields as `add`."""
        yield from self._begin(media_item_id)
        yield from self._abandon(
            f"media_item_id: an earlier run has done rows of {media_item_id!r}, so that the others "
            "aren't the whole media item"
        )

    def rest(self) -> Iterator[Call]:
        """What is left."""
        if self._items:
            yield Call(tuple(self._items.values()), replace=True)
        self._clear()

    def miss(self, media_item_id: Id | None, what: str) -> Iterator[Call | Unreplaceable]:
        """Take note of rows that can't be used; yields as `add`.

        If nobody knows whose they are, they may be of the media item before them or after them.
        """
        reason = f"media_item_id: {what}, so that the others may not be the whole media item"
        if media_item_id is not None:
            yield from self._begin(media_item_id)
        else:
            self._missing = reason
        yield from self._abandon(reason)

    def _begin(self, media_item_id: Id) -> Iterator[Call]:
        """Go on to a media item, if it isn't the one that is collected."""
        media_item = str(media_item_id)
        missing, self._missing = self._missing, None
        if media_item == self._media_item:
            return
        yield from self.rest()
        self._media_item = media_item
        if media_item in self._seen:
            self._obstacle = (
                f"media_item_id: {media_item_id!r} came before, with other rows between; "
                "rows of a media item that is replaced have to stand next to each other"
            )
        else:
            self._obstacle = missing
        self._seen.add(media_item)

    def _refuse(self, item: Item, what: str) -> Iterator[Unreplaceable]:
        reason = (
            f"media_item_id: {self._media_item} has {what}, which can't be replaced in one step; "
            "nothing of it was sent. Delete the media item and run the backfill without --replace"
        )
        yield from self._abandon(reason)
        yield Unreplaceable((item,), reason)

    def _abandon(self, reason: str) -> Iterator[Unreplaceable]:
        if self._items:
            yield Unreplaceable(tuple(self._items.values()), reason)
        self._items, self._chars, self._obstacle = {}, 0, self._obstacle or reason

    def _clear(self) -> None:
        self._media_item, self._items, self._chars, self._obstacle = None, {}, 0, None
