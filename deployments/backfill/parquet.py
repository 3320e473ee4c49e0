"""Parquet, by pyarrow: a row a row, whatever the columns are called."""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import IO, Any

from deployments.backfill.rows import BadRow, ReadOptions, Row, UnreadableSource, check_columns
from deployments.core.pyarrow_modules import import_pyarrow

_ROWS_AT_ONCE = 1024


def read_parquet(stream: IO[bytes], options: ReadOptions) -> Iterator[Row | BadRow]:
    """A row for each row; null, and NaN of a float column, is a field without a value.

    A whole number in a float column, to which pandas turns integers with gaps, is an integer;
    times and dates are in ISO 8601, and durations are seconds.

    Raises InvalidInput if pyarrow isn't installed.
    """
    arrow, parquet = import_pyarrow()
    number = 0
    try:
        with parquet.ParquetFile(stream) as file:
            check_columns(file.schema_arrow.names, options.columns)
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    plain = {name: _plain(value) for name, value in row.items()}
                    fields = {name: value for name, value in plain.items() if value is not None}
                    yield Row(number, fields, fields)
    except (arrow.ArrowException, OSError, ValueError) as error:
        # A damaged page is an OSError, a value that Python can't hold a ValueError.
        raise UnreadableSource(
            f"after row {number} it can't be read as Parquet: {error}"
        ) from error


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
            return _plain(float(value)) if value.is_finite() else None
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
