"""Segments, filters and queries drawn from a seed, small enough to collide often."""

import math
import random
from collections.abc import Sequence
from typing import Any

from search_reference import Stored
from storage_samples import TRANSCRIPT, upsert_of, vector_of

from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import DeleteMedia, EmbeddingType, Id, Segment

WORDS = ["rsi", "S&P", "500", "EMA200", "10-K", "yields", "falling", "fell", "risk", "the"]
MEDIA: list[Id] = [1, "1", 2, "two", "a/b", "ü", 7, -3]
KEYS = ["a", "b", "größe", 'q"x', "back\\slash", "x y"]
SCALARS: list[Any] = [0, 1, 1.0, 2.5, -3, 2**53 + 1, "", "1", "AAPL", "é", "true", True, False]
MOST_FIELDS = 10
"""Of a filter: each has up to two conditions, of the 20 that may be on metadata."""
TIMES = [None, 0, 1, 2.5, 4, 7.25, 10]


class Draw:
    """Random values of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._fields_left = MOST_FIELDS

    def one(self, values: Sequence[Any]) -> Any:
        return self.random.choice(values)

    def some(self, values: Sequence[Any], most: int) -> list[Any]:
        return [self.one(values) for _ in range(self.random.randrange(most + 1))]

    def text(self) -> str:
        return " ".join(self.some(WORDS, 6)) or "none"

    def metadata(self, depth: int = 0) -> dict[str, Any]:
        return {key: self._value(depth) for key in self.some(KEYS, 4)}

    def _value(self, depth: int) -> Any:
        kind = self.random.randrange(8)
        if kind == 0 and depth < 3:
            return [self._value(depth + 1) for _ in range(self.random.randrange(4))]
        if kind == 1 and depth < 3:
            return self.metadata(depth + 1)
        return None if kind == 2 else self.one(SCALARS)

    def segment(self, name: Id) -> Segment:
        start, end = self.one(TIMES), self.one(TIMES)
        if start is not None and end is not None and end < start:
            start, end = end, start
        return Segment(name, self.text(), start, end, self.metadata())

    def filter(self, depth: int = 0) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        if depth == 0:
            self._fields_left = MOST_FIELDS
        for _ in range(self.one((1, 1, 1, 2))):
            kind = self.random.randrange(8)
            if kind < 2 and depth < 3:
                inner = [self.filter(depth + 1) for _ in range(self.one((1, 2, 3)))]
                parts[self.one(("$and", "$or"))] = inner
            elif kind == 2 and depth < 3:
                parts["$not"] = self.filter(depth + 1)
            elif kind == 3 or (kind > 5 and not self._fields_left):
                parts["$time"] = self._time()
            elif kind == 4:
                name, ids = self.one((("media_item_id", MEDIA), ("segment_id", [0, "1", 5, "x"])))
                parts[name] = self._members(ids)
            elif kind == 5:
                parts[self.one(("start_time", "end_time"))] = self._condition([0, 1, 2.5, 8])
            else:
                self._fields_left -= 1
                field = ".".join([self.one(KEYS), *self.some(KEYS[:3], 1)])
                parts[field] = self._condition(SCALARS)
        return parts

    def _time(self) -> dict[str, Any]:
        first, last = sorted(self.random.uniform(-1, 11) for _ in range(2))
        times = {
            "from": self.one((first, math.floor(first))),
            "to": self.one((last, int(last) + 1)),
        }
        return self.one((times, {"from": first}, {"to": last}))  # type: ignore[no-any-return]

    def _members(self, values: Sequence[Any]) -> Any:
        several = self.some(values, 4)
        return self.one(
            (
                self.one(values),
                {"$eq": self.one(values)},
                {"$ne": self.one(values)},
                {"$in": several},
                {"$nin": several},
            )
        )

    def _condition(self, values: Sequence[Any]) -> Any:
        numbers = [each for each in values if type(each) in (int, float)]
        texts = [each for each in values if isinstance(each, str)] or None
        bounds = self.one((numbers, texts or numbers))
        upper, lower = self.one(("$lt", "$lte")), self.one(("$gt", "$gte"))
        return self.one(
            (
                self._members(values),
                {"$exists": self.one((True, False))},
                {lower: self.one(bounds)},
                {upper: self.one(bounds), lower: self.one(bounds)},
                {upper: self.one(bounds), "$ne": self.one(values)},
            )
        )


class RandomContents:
    """An index under random writes, and what it must hold then, in the order of the rows."""

    def __init__(self, index: SegmentIndex, draw: Draw, kind: EmbeddingType = TRANSCRIPT) -> None:
        self.everything: list[Stored] = []
        self._index = index
        self._draw = draw
        self._kind = kind
        self.numbers = 0

    def write(self, segments: int) -> None:
        """Store segments of one media item, over what is there, or delete one."""
        media = self._draw.one(MEDIA)
        if self._draw.random.random() < 0.15:
            self._index.apply([DeleteMedia(media, self._kind)])
            self.everything = [
                each for each in self.everything if str(each.media_item_id) != str(media)
            ]
            return
        names = self._draw.random.sample(range(2 * segments), segments)
        parts = [self._draw.segment(name) for name in names]
        # Told apart by their texts, so that every one is a new row.
        parts = [
            Segment(
                each.id,
                f"{each.text} {self.numbers + position}",
                each.start_time,
                each.end_time,
                each.metadata,
            )
            for position, each in enumerate(parts)
        ]
        self._index.apply([upsert_of(media, *parts, kind=self._kind)])
        replaced = {str(each.id) for each in parts}
        self.everything = [
            each
            for each in self.everything
            if (str(each.media_item_id) != str(media) or str(each.segment.id) not in replaced)
        ]
        for each in parts:
            self.numbers += 1
            self.everything.append(Stored(self.numbers, media, each, vector_of(each.text)))
