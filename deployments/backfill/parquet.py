"""Parquet, by pyarrow: a row a row, whatever the columns are called."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import IO, Any

from deployments.backfill.rows import BadRow, ReadOptions, Row, UnreadableSource, check_columns
from deployments.core.fields import INT64
from deployments.core.folders.pyarrow_modules import import_pyarrow

_ROWS_AT_ONCE = 1024


def read_parquet(stream: IO[bytes], options: ReadOptions) -> Iterator[Row | BadRow]:
    """A row for each row; null, and NaN of a float column, is a field without a value.

    A whole number in a float column, to which pandas turns integers with gaps, is an integer;
    times and dates are in ISO 8601, and durations are seconds. A decimal number is an integer or a
    float if that is exactly it, else a string.

    Raises InvalidInput if pyarrow isn't installed.
    """
    arrow, parquet = import_pyarrow()
    number = 0
    try:
        with parquet.ParquetFile(stream) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise UnreadableSource(f"it has a column twice: {', '.join(names)}")
            check_columns(names, options)
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                for record in _records(batch):
                    number += 1
                    if isinstance(record, _Unreadable):
                        yield BadRow(number, record.reason, record.others)
                        continue
                    plain = {name: _plain(value) for name, value in record.items()}
                    fields = {name: value for name, value in plain.items() if value is not None}
                    yield Row(number, fields, fields)
    except (arrow.ArrowException, OSError, ValueError) as error:
        # A damaged page is an OSError, a value that Python can't hold a ValueError.
        raise UnreadableSource(
            f"after row {number} it can't be read as Parquet: {error}"
        ) from error


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """A row with values that Python can't hold, and its other values."""

    reason: str
    others: dict[str, Any]


def _records(batch: Any) -> list[dict[str, Any] | _Unreadable]:
    """The batch's rows. Only if that fails, value by value, which takes many times as long."""
    try:
        return list(batch.to_pylist())
    except Exception:
        # pyarrow raises what Python does, such as OverflowError for a date in the year 10,000.
        return [_record(batch, index) for index in range(batch.num_rows)]


def _record(batch: Any, index: int) -> dict[str, Any] | _Unreadable:
    values, problems = {}, []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            values[name] = column[index].as_py()
        except Exception as error:
            problems.append(f"column {name!r} has a value that can't be read: {error}")
    return _Unreadable("; ".join(problems), values) if problems else values


def _plain_decimal(value: Decimal) -> int | float | str | None:
    """A number where the service keeps it as it is, else its digits."""
    if not value.is_finite():
        return None
    number: int | float = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(number, int):
        return number if -INT64 <= number < INT64 else str(number)
    return number if Decimal(repr(number)) == value else str(value)


def _plain(value: Any) -> Any:
    """The value as JSON could hold it; of other types, the string of it."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if value != value:
                return None
            return int(value) if value.is_integer() and abs(value) < 2**53 else value
        case Decimal():
            return _plain_decimal(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes():
            return value.decode("utf-8", "replace")
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
        case _:
            return str(value)
