"""What readers make of a file: rows, good or bad."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from deployments.core.segments import Id

MAX_RAW_CHARS = 2000
"""Of a row as it stands in the source; what is longer is cut in reports."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row's fields by their names in the source; a field without a value isn't there.

    `number` is that of the row's first line, in Parquet of the row, from 1. `raw` is the row as
    it stands in the source, or its fields where that isn't text.
    """

    number: int
    fields: dict[str, Any]
    raw: str | dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that can't be read or stored, and why; None if nobody knows of which media item."""

    number: int
    reason: str
    raw: str | dict[str, Any]
    media_item_id: Id | None = None


class InvalidRow(Exception):
    """A row that is no segment; the message says which field is wrong, and why."""


class UnreadableSource(Exception):
    """A file, or the rest of it, can't be read; the message says why."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read: the name of the text's encoding, and columns that a table has to have, all of
    `columns` and one of `any_columns`.

    Without an encoding, UTF-8 and UTF-16 are told apart, and a line that is neither is taken for
    Windows-1252.
    """

    encoding: str | None = None
    columns: tuple[str, ...] = ()
    any_columns: tuple[str, ...] = ()


Reader = Callable[[IO[bytes], ReadOptions], Iterator[Row | BadRow]]
"""Yields a file's rows in their order, in bounded memory. Raises UnreadableSource."""


def shown(raw: str | dict[str, Any]) -> str:
    """A row for people, of bounded length."""
    text = raw if isinstance(raw, str) else json.dumps(raw, default=str, ensure_ascii=False)
    return text if len(text) <= MAX_RAW_CHARS else f"{text[:MAX_RAW_CHARS]}…"


def check_columns(names: list[str], options: ReadOptions) -> None:
    """Raise UnreadableSource if a table lacks a column that it has to have."""
    lacking = [repr(name) for name in options.columns if name not in names]
    if lacking:
        problem = f"it has no column {', '.join(lacking)}"
    elif options.any_columns and not set(names) & set(options.any_columns):
        problem = f"it has none of the columns {', '.join(map(repr, options.any_columns))}"
    else:
        return
    raise UnreadableSource(f"{problem}; its columns are {', '.join(names)}")
