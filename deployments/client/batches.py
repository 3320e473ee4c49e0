"""Segments from an iterator, put into requests of bounded size."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from deployments.client.errors import EmbeddingsError
from deployments.client.results import Id, Json, Stored, StoredMany

if TYPE_CHECKING:
    from asyncio import Task

BATCH_SIZE = 200
BATCH_CHARS = 1_000_000
"""Of the texts of a request, whatever the number of its segments."""

WINDOW = 2000
"""Segments that wait for others of their media item, so that media items may alternate."""
WINDOW_CHARS = 8_000_000

Progress = Callable[[StoredMany], None]
F = TypeVar("F", "Future[Stored]", "Task[Stored]")


@dataclass(frozen=True, slots=True)
class Batch:
    """Segments of one media item, each with an id of its own."""

    media_item_id: Id
    segments: tuple[Json, ...]
    names: frozenset[str]

    def conflicts_with(self, other: "Batch") -> bool:
        """Whether it matters which of the two is stored first."""
        same_item = str(self.media_item_id) == str(other.media_item_id)
        return same_item and not self.names.isdisjoint(other.names)


@dataclass(slots=True)
class _Open:
    media_item_id: Id
    segments: dict[str, Json]
    chars: int = 0


class Batches:
    """Collects segments into batches; each media item's segments keep their order.

    A segment is as in `/embed`, with its `media_item_id` beside, unless all are of `media_item_id`.
    """

    def __init__(self, media_item_id: Id | None = None, size: int = BATCH_SIZE) -> None:
        if size < 1:
            raise ValueError(f"batch_size is {size}; it must be at least 1")
        self._media_item_id = media_item_id
        self._size = size
        self._open: dict[str, _Open] = {}
        self._taken = 0
        self._waiting = 0
        self._waiting_chars = 0

    def all_of(self, segments: Iterable[Json]) -> Iterator[Batch]:
        """The batches of all these segments."""
        for segment in segments:
            yield from self.add(segment)
        yield from self.rest()

    def add(self, segment: Json) -> Iterator[Batch]:
        """Take a segment; yields the batches that are complete then.

        Raises ValueError if it has no media item or no id.
        """
        segment = dict(segment)
        item = segment.pop("media_item_id", self._media_item_id)
        for name, given in (("media_item_id", item), ("id", segment.get("id"))):
            if given is None:
                raise ValueError(f"segment {self._taken} (from 0) has no {name}")
        self._taken += 1
        key, name, chars = str(item), str(segment["id"]), len(str(segment.get("text", "")))
        opened = self._open.get(key)
        if opened and (name in opened.segments or opened.chars + chars > BATCH_CHARS):
            yield self._close(key)
        opened = self._open.setdefault(key, _Open(item, {}))
        opened.segments[name] = segment
        opened.chars += chars
        self._waiting += 1
        self._waiting_chars += chars
        if len(opened.segments) >= self._size:
            yield self._close(key)
        while self._waiting > WINDOW or self._waiting_chars > WINDOW_CHARS:
            # The media item that waits longest.
            yield self._close(next(iter(self._open)))

    def rest(self) -> Iterator[Batch]:
        """What is left."""
        for key in list(self._open):
            yield self._close(key)

    def _close(self, key: str) -> Batch:
        done = self._open.pop(key)
        self._waiting -= len(done.segments)
        self._waiting_chars -= done.chars
        return Batch(done.media_item_id, tuple(done.segments.values()), frozenset(done.segments))


class InFlight(Generic[F]):
    """The calls that are under way, at most `limit`, and the sum of what they stored."""

    def __init__(self, limit: int, progress: Progress | None) -> None:
        if limit < 1:
            raise ValueError(f"in_flight is {limit}; it must be at least 1")
        self._limit = limit
        self._progress = progress
        self._calls: dict[F, Batch] = {}
        self.stored = StoredMany()

    @property
    def calls(self) -> set[F]:
        """The calls to wait for."""
        return set(self._calls)

    def has_room_for(self, batch: Batch) -> bool:
        """Whether a batch can be sent now; else wait for a call and ask again."""
        return len(self._calls) < self._limit and not any(
            batch.conflicts_with(other) for other in self._calls.values()
        )

    def add(self, call: F, batch: Batch) -> None:
        """Take account of a call that has begun."""
        self._calls[call] = batch

    def settle(self, done: set[F]) -> None:
        """Take account of calls that have ended. Raises the error of one that failed."""
        failed: BaseException | None = None
        for call in done:
            del self._calls[call]
            failure = call.exception()
            if failure is None:
                self.stored += call.result()
                if self._progress is not None:
                    self._progress(self.stored)
            else:
                failed = failure
        if failed is not None:
            if isinstance(failed, EmbeddingsError) and self.stored.calls:
                failed.add_note(
                    f"{self.stored.embeddings_created} segments were stored before; storing them "
                    "again is safe"
                )
            raise failed
