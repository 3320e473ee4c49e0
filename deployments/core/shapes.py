"""How the results of a search are arranged: from where on, in groups, without near-duplicates."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """The last result of a page: its score, by what its mode ranks, and its row.

    `as_of` is the last sequence number that there was when the first page was read. `shown` are the
    marks of the media items that earlier pages showed as groups, of the latest ones alone. `model`
    is the mark of the model's fingerprint, whose vectors were ranked.
    """

    as_of: int
    score: float
    sequence: int
    shown: tuple[str, ...] = ()
    model: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a search asks for beyond its best results.

    In groups, the results are the best ones of different media items, each with up to `group_size`
    hits in all. A hit with a cosine of `duplicate_cosine` or more to a better one of the answer is
    left out. With a `cursor_key`, the answer has a cursor for the page after it, which belongs to
    the search with this key; `after` is the last result of the page before.
    """

    offset: int = 0
    in_groups: bool = False
    group_size: int = 1
    duplicate_cosine: float | None = None
    cursor_key: str | None = None
    after: Position | None = None
