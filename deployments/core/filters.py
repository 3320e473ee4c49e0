"""Which segments a search may find: conditions on their media item, times and metadata.

All values are frozen and canonical: filters that ask the same in the same order are equal, and 1
differs from true. Two orders of the same conditions may differ.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

_BYTES_PER_CHAR = 4  # as Python keeps a string with an emoji in it

Scalar = str | int | float | bool
Bound = str | int | float

Path = tuple[str, ...]
"""The keys that lead to a value in a segment's metadata, from the outermost."""


class Column(StrEnum):
    """Fields of a segment that aren't metadata, by the names that results give them."""

    MEDIA_ITEM_ID = "media_item_id"
    SEGMENT_ID = "segment_id"
    START_TIME = "start_time"
    END_TIME = "end_time"


Subject = Path | Column
"""What a condition is about. Metadata may have several values at a path: the elements of lists
count each by itself, at the end of the path and on the way."""


@dataclass(frozen=True, slots=True)
class IdIn:
    """The id is one of these, where 1 and "1" are the same."""

    column: Column
    keys: tuple[str, ...]

    @classmethod
    def of(cls, column: Column, ids: Iterable[int | str]) -> "IdIn":
        """From ids in any form."""
        return cls(column, tuple(sorted({str(each) for each in ids})))


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A value is one of these: a string, a number (1 and 1.0 are the same), true or false."""

    subject: Subject
    texts: tuple[str, ...] = ()
    numbers: tuple[int | float, ...] = ()
    booleans: tuple[bool, ...] = ()

    @classmethod
    def of(cls, subject: Subject, values: Iterable[Scalar]) -> "AnyOf":
        """From values of any kinds."""
        texts: set[str] = set()
        numbers: set[int | float] = set()
        booleans: set[bool] = set()
        for value in values:
            match value:
                case bool():
                    booleans.add(value)
                case str():
                    texts.add(value)
                case _:
                    numbers.add(value)
        return cls(subject, tuple(sorted(texts)), tuple(sorted(numbers)), tuple(sorted(booleans)))


@dataclass(frozen=True, slots=True)
class Between:
    """A value is within all of these bounds, which are all numbers or all strings.

    Only numbers are compared with numbers, and strings with strings, by code points.
    """

    subject: Subject
    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """There is a value, and it isn't null."""

    subject: Subject


@dataclass(frozen=True, slots=True)
class Overlaps:
    """The segment's time has a moment in common with the range, both ends of both included.

    A segment with one time lasts no time; one without any overlaps nothing. None is no bound.
    """

    start: int | float | None = None
    end: int | float | None = None


@dataclass(frozen=True, slots=True)
class Not:
    """The other one doesn't hold."""

    negated: "Filter"


@dataclass(frozen=True, slots=True)
class And:
    """All hold."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one holds."""

    parts: tuple["Filter", ...]


Filter = IdIn | AnyOf | Between | Exists | Overlaps | Not | And | Or


def bytes_of(wanted: Filter) -> int:
    """About how much memory a filter takes at most."""
    return _BYTES_PER_CHAR * len(repr(wanted))
