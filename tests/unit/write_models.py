"""Writes drawn from a seed, and what an index holds after them."""

import random
from collections.abc import Sequence
from typing import Any

from storage_samples import segment, stored, upsert_of

from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import DeleteMedia, EmbeddingType, Upsert

Operation = Upsert | DeleteMedia
Contents = dict[tuple[EmbeddingType, Any, Any], str]
"""Texts by type, media item and segment."""

MEDIA = 6
SEGMENTS = 8
LONG = 3000


def after(contents: Contents, operations: Sequence[Operation]) -> Contents:
    """The contents once all operations were carried out."""
    result = dict(contents)
    for operation in operations:
        kind, media = operation.embedding_type, operation.media_item_id
        if isinstance(operation, DeleteMedia) or operation.replace:
            gone = [key for key in result if kind in (None, key[0]) and key[1] == media]
            for key in gone:
                del result[key]
        if isinstance(operation, Upsert):
            result |= {(kind, media, each.id): each.text for each in operation.segments}
    return result


def contents(index: SegmentIndex) -> Contents:
    """What a search for everything finds."""
    return {
        (kind, *key): found.text
        for kind in EmbeddingType
        for key, found in stored(index, kind).items()
    }


class Writes:
    """An endless supply of groups of operations, no two of which are alike."""

    def __init__(self, seed: object) -> None:
        self._random = random.Random(str(seed))
        self._count = 0

    def group(self) -> list[Operation]:
        """Some operations of one transaction."""
        return [self._operation() for _ in range(self._random.choice((1, 1, 1, 2, 4)))]

    def _operation(self) -> Operation:
        kind = self._random.choice(tuple(EmbeddingType))
        media = self._random.randrange(MEDIA)
        if self._random.random() < 0.2:
            return DeleteMedia(media, kind if self._random.random() < 0.7 else None)
        names = self._random.sample(range(SEGMENTS), self._random.randint(1, SEGMENTS))
        segments = [segment(name, self._text()) for name in names]
        return upsert_of(media, *segments, replace=self._random.random() < 0.4, kind=kind)

    def _text(self) -> str:
        self._count += 1
        padding = "x" * self._random.choice((0, 10, 100, LONG))
        return f"text {self._count} {padding}"
