"""Which segments a search may find: conditions on their media item, times and metadata.

All values are frozen and canonical, as `of`, `all_of` and `any_of` make them: filters that have the
same conditions in any order and number are equal, and so are their forms in `repr`; 1 is 1.0, and
differs from true.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

_INT64 = 2**63
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
                    numbers.add(canonical(value))
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


def canonical(number: int | float) -> int | float:
    """The number as an integer if it is one of 64 bits."""
    if isinstance(number, float) and number.is_integer() and -_INT64 <= number < _INT64:
        return int(number)
    return number


def all_of(parts: Iterable[Filter]) -> Filter:
    """All of these hold, those first that are quickly seen; none is no condition."""
    return _joined(And, set(_flat(And, parts)))


def any_of(parts: Iterable[Filter]) -> Filter:
    """At least one of these holds. Values of one subject become one condition, read once."""
    joined: set[Filter] = set()
    ids: dict[Column, list[str]] = {}
    values: dict[Subject, list[Scalar]] = {}
    for part in _flat(Or, parts):
        match part:
            case IdIn(column, keys):
                ids.setdefault(column, []).extend(keys)
            case AnyOf(subject, texts, numbers, booleans):
                values.setdefault(subject, []).extend((*texts, *numbers, *booleans))
            case _:
                joined.add(part)
    joined.update(IdIn.of(*each) for each in ids.items())
    joined.update(AnyOf.of(*each) for each in values.items())
    return _joined(Or, joined)


def _flat(kind: type[And | Or], parts: Iterable[Filter]) -> Iterator[Filter]:
    for part in parts:
        if isinstance(part, kind):
            yield from part.parts
        else:
            yield part


def _joined(kind: type[And | Or], parts: set[Filter]) -> Filter:
    if len(parts) == 1:
        return next(iter(parts))
    return kind(tuple(sorted(parts, key=lambda part: (_reads_metadata(part), repr(part)))))


def _reads_metadata(part: Filter) -> bool:
    match part:
        case IdIn() | Overlaps():
            return False
        case AnyOf(subject) | Between(subject) | Exists(subject):
            return not isinstance(subject, Column)
    return True


def bytes_of(wanted: Filter) -> int:
    """About how much memory a filter takes at most."""
    return _BYTES_PER_CHAR * len(repr(wanted))
