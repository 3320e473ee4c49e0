"""JSON Lines: an object a line."""

import json
from collections.abc import Iterator
from typing import IO

from deployments.backfill.lines import read_lines
from deployments.backfill.rows import BadRow, ReadOptions, Row


def read_json_lines(stream: IO[bytes], options: ReadOptions) -> Iterator[Row | BadRow]:
    """A row for each line that isn't empty."""
    for line in read_lines(stream, options.encoding):
        if line.problem is not None:
            yield BadRow(line.number, line.problem, line.text)
            continue
        if not line.text.strip():
            continue
        try:
            document = json.loads(line.text)
        except (ValueError, RecursionError) as error:
            yield BadRow(line.number, f"it isn't JSON: {error}", line.text)
            continue
        if isinstance(document, dict):
            yield Row(line.number, document, line.text)
        else:
            found = type(document).__name__
            yield BadRow(line.number, f"it is a JSON {found}, expected an object", line.text)
