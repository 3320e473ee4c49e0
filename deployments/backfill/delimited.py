"""CSV: a header, then a record a row; a field in quotes may hold anything, line ends too."""

import csv
from collections import deque
from collections.abc import Iterator
from typing import IO

from deployments.backfill.lines import Line, read_lines
from deployments.backfill.rows import BadRow, ReadOptions, Row, UnreadableSource, check_columns

DELIMITERS = ",;\t|"


def read_delimited(stream: IO[bytes], options: ReadOptions) -> Iterator[Row | BadRow]:
    """A row for each record. An empty cell is a field without a value.

    The delimiter is the one of comma, semicolon, tab and bar that is most often in the header.
    Raises UnreadableSource for a header that can't be used.
    """
    lines = read_lines(stream, options.encoding)
    header = next((line for line in lines if line.text.strip()), None)
    if header is None:
        return
    if header.problem is not None:
        raise UnreadableSource(f"its header in line {header.number}: {header.problem}")
    delimiter = max(DELIMITERS, key=header.text.count)
    names = _names(header.text, delimiter)
    check_columns(names, options)
    for record in _Records(lines, delimiter):
        if isinstance(record, BadRow):
            yield record
            continue
        number, cells, text = record
        if len(cells) != len(names):
            yield BadRow(number, f"it has {len(cells)} cells, and the header {len(names)}", text)
        else:
            pairs = zip(names, cells, strict=True)
            yield Row(number, {name: cell for name, cell in pairs if name and cell}, text)


def _names(header: str, delimiter: str) -> list[str]:
    try:
        names = [
            name.strip() for name in next(csv.reader([header], delimiter=delimiter, strict=True))
        ]
    except csv.Error as error:
        raise UnreadableSource(f"its header isn't CSV: {error}") from error
    named = [name for name in names if name]
    if len(set(named)) < len(named):
        raise UnreadableSource(f"its header has a column twice: {', '.join(names)}")
    return names


class _Records:
    """Iterates over records: the number of the first line, the cells, and the text.

    After a record that isn't CSV it goes on with that record's second line, so that a quote that
    is never closed costs one row.
    """

    def __init__(self, lines: Iterator[Line], delimiter: str) -> None:
        self._lines = lines
        self._delimiter = delimiter
        self._again: deque[Line] = deque()
        self._taken: list[Line] = []
        self._unreadable: list[BadRow] = []

    def __iter__(self) -> Iterator[tuple[int, list[str], str] | BadRow]:
        reader = self._reader()
        while True:
            self._taken = []
            record: tuple[int, list[str], str] | BadRow | None = None
            try:
                cells = next(reader)
            except StopIteration:
                yield from self._unreadable
                return
            except csv.Error as error:
                record = self._refuse(error)
                reader = self._reader()
            else:
                if cells:
                    text = "\n".join(line.text for line in self._taken)
                    record = (self._taken[0].number, cells, text)
            yield from self._unreadable
            self._unreadable = []
            if record is not None:
                yield record

    def _refuse(self, error: csv.Error) -> BadRow:
        first, *others = self._taken
        self._again.extendleft(reversed(others))
        hint = "; is a quote in it not closed?" if others else ""
        return BadRow(first.number, f"it isn't CSV: {error}{hint}", first.text)

    def _reader(self) -> Iterator[list[str]]:
        return csv.reader(self._texts(), delimiter=self._delimiter, strict=True)

    def _texts(self) -> Iterator[str]:
        while line := self._again.popleft() if self._again else next(self._lines, None):
            if line.problem is not None:
                self._unreadable.append(BadRow(line.number, line.problem, line.text))
            else:
                self._taken.append(line)
                yield f"{line.text}\n"
