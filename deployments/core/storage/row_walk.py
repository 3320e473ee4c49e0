"""Reading a table around pages that can't be read."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Row = Sequence[Any]
"""A row whose first value is its sequence number."""

_MOST_FAILURES = 300_000  # some ten seconds; only a table without a readable index needs so many


class RowWalk:
    """The rows of a table that can be read, ascending by sequence number.

    `between(first, last)` reads rows, both ends included, in ascending order, and raises
    sqlite3.Error at what can't be read; `alone(sequence)` is asked for a row of which that is so.
    After the walk, `complete` tells whether every number was tried.
    """

    def __init__(
        self,
        between: Callable[[int, int], Iterator[Row]],
        alone: Callable[[int], Row | None],
    ) -> None:
        self._between = between
        self._alone = alone
        self.complete = True

    def rows(self, sequences: Sequence[int]) -> Iterator[Row]:
        """Walk from the first to the last of these ascending numbers.

        Where a range can't be read, it is halved until single numbers of `sequences` are left, so
        these should be the numbers that rows have, where they are known.
        """
        ranges = [sequences]
        failures = 0
        while ranges:
            numbers = ranges.pop()
            if not len(numbers):
                continue
            read = int(numbers[0]) - 1
            try:
                for row in self._between(int(numbers[0]), int(numbers[-1])):
                    if row[0] <= read:
                        raise sqlite3.DatabaseError("rows are out of order")
                    read = row[0]
                    yield row
                continue
            except (sqlite3.Error, UnicodeDecodeError):  # the second for a message of SQLite's
                failures += 1
            if failures > _MOST_FAILURES:
                self.complete = False
                return
            rest = numbers[_first_after(numbers, read) :]
            if len(rest) == 1:
                row_alone = self._alone(int(rest[0]))
                if row_alone is not None:
                    yield row_alone
            else:
                middle = len(rest) // 2
                ranges += [rest[middle:], rest[:middle]]


def _first_after(numbers: Sequence[int], read: int) -> int:
    low, high = 0, len(numbers)
    while low < high:
        middle = (low + high) // 2
        if numbers[middle] <= read:
            low = middle + 1
        else:
            high = middle
    return low
