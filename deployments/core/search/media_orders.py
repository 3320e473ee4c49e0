"""The rows of media items by time, kept for the next search."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from deployments.core.segments import EmbeddingType
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage.time_order import time_keys
from deployments.core.storage_errors import translated
from deployments.core.vectors.main_part import Sequences

MOST_ROWS = 1_000_000
"""Of all media items that are kept: 16 MB."""


@dataclass(frozen=True, slots=True)
class MediaOrder:
    """All rows of a media item and type, int64: those with a time by it, and all ascending."""

    timed: Sequences
    rows: Sequences

    def around(self, sequence: int, count: int) -> Sequences:
        """A row and up to `count` rows before and after it; it alone if it has no time."""
        places = np.flatnonzero(self.timed == sequence)
        if not len(places):
            return np.array([sequence], np.int64)
        place = int(places[0])
        return self.timed[max(0, place - count) : place + count + 1]


class MediaOrders:
    """Reads each order once, and again when the media item's rows have changed.

    Safe in any thread.
    """

    def __init__(self, most_rows: int = MOST_ROWS) -> None:
        self._most_rows = most_rows
        self._lock = threading.Lock()
        self._orders: OrderedDict[tuple[EmbeddingType, str], MediaOrder] = OrderedDict()
        self._rows = 0

    def of(self, reader: StoreReader, kind: EmbeddingType, media_key: str) -> MediaOrder:
        """The order in the reader's state. Raises StoreError."""
        key = (kind, media_key)
        with self._lock:
            order = self._orders.get(key)
            if order is not None:
                self._orders.move_to_end(key)
        if order is None or not _is_current(order, reader, kind, media_key):
            order = _read(reader, kind, media_key)
            self._keep(key, order)
        return order

    def _keep(self, key: tuple[EmbeddingType, str], order: MediaOrder) -> None:
        with self._lock:
            before = self._orders.pop(key, None)
            self._orders[key] = order
            self._rows += len(order.rows) - (0 if before is None else len(before.rows))
            while self._rows > self._most_rows:
                _, oldest = self._orders.popitem(last=False)
                self._rows -= len(oldest.rows)


def _is_current(
    order: MediaOrder, reader: StoreReader, kind: EmbeddingType, media_key: str
) -> bool:
    # A row is never changed and no number given twice: what came since is a higher one, and what
    # went is one less. The index answers this by itself.
    with translated("Cannot read the store"):
        count, last = reader.connection.execute(
            "SELECT count(*), max(seq) FROM segments INDEXED BY segments_by_name "
            "WHERE embedding_type=? AND CAST(media_item_id AS TEXT)=?",
            (kind.value, media_key),
        ).fetchone()
    return bool(count == len(order.rows) and (count == 0 or last == order.rows[-1]))


def _read(reader: StoreReader, kind: EmbeddingType, media_key: str) -> MediaOrder:
    keys = sorted(time_keys(reader, kind, media_key))
    timed = [sequence for has_no_time, _, sequence in keys if not has_no_time]
    rows = np.array([sequence for *_, sequence in keys], np.int64)
    rows.sort()
    return MediaOrder(np.array(timed, np.int64), rows)
