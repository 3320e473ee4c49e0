"""Reads one file's rows as segments, some at a time, so that it can be done in a thread."""

from collections.abc import Generator
from dataclasses import replace
from itertools import islice

from deployments.backfill.formats import FORMATS
from deployments.backfill.mapping import FileMapping, RowMapping
from deployments.backfill.named_by_position import NamedByPosition
from deployments.backfill.rows import BadRow, InvalidRow, ReadOptions, Row, UnreadableSource
from deployments.backfill.sources import OpenFile, SourceFile
from deployments.core.errors import ServiceError
from deployments.core.segments import Id, Segment

Read = tuple[Row, Id, Segment] | BadRow


class FileReader:
    """A file's rows, without the first `skip`."""

    def __init__(
        self,
        file: SourceFile,
        mapping: RowMapping,
        options: ReadOptions,
        named: NamedByPosition | None = None,
        skip: int = 0,
    ) -> None:
        self._file = file
        self._mapping = mapping
        self._options = options
        self._named = named
        self.media_item_id: Id | None = None
        """The one that all of its rows are of, if that is known."""
        self.warnings: list[str] = []
        """What is to be said of the file as a whole, so far."""
        self._from_begin = skip == 0
        self._unseen: dict[str, str] = {}
        self._open: OpenFile | None = None
        self._failure: UnreadableSource | None = None
        self._rows = self._segments(skip)

    def take(self, count: int) -> list[Read]:
        """The next rows; none at the end. Raises UnreadableSource after the last readable row."""
        taken: list[Read] = []
        try:
            if self._failure is not None:
                raise self._failure
            for row in islice(self._rows, count):
                taken.append(row)
        except UnreadableSource as error:
            self._failure = error
            if not taken:
                raise
        return taken

    def close(self) -> None:
        """Close the file; `warnings` are complete then."""
        self._rows.close()
        if self._unseen and self._from_begin:
            named = " and ".join(f"{name}={column}" for name, column in self._unseen.items())
            self.warnings.append(f"--map {named}: no row has such a column")
        self._unseen = {}

    def bytes_read(self) -> int:
        """How much of the stored file was read, at most its size."""
        position = self._open.position() if self._open is not None else 0
        return min(position, self._file.size or 0)

    def _segments(self, skip: int) -> Generator[Read, None, None]:
        file = self._file
        try:
            mapping = self._mapping.of_file(file, self._named)
            self.media_item_id = mapping.media_item_id()
            if mapping.warning is not None:
                self.warnings.append(mapping.warning)
            with file.open() as self._open:
                rows = FORMATS[file.format].read(self._open.stream, self._options)
                for row in islice(rows, skip, None):
                    if isinstance(row, Row):
                        self._unseen = mapping.unseen
                    yield _segment(mapping, row)
        except (UnreadableSource, ServiceError):
            raise
        except Exception as error:
            # File systems and decompressors raise whatever they like.
            raise UnreadableSource(f"it can't be read: {type(error).__name__}: {error}") from error


def _segment(mapping: FileMapping, row: Row | BadRow) -> Read:
    if isinstance(row, BadRow):
        return replace(row, media_item_id=mapping.media_item_id())
    try:
        media_item_id, segment = mapping.segment(row)
    except InvalidRow as error:
        return BadRow(row.number, str(error), row.raw, mapping.media_item_id(row))
    except Exception as error:
        # Whatever a value breaks, it is this row's.
        reason = f"it can't be used: {type(error).__name__}: {error}"
        return BadRow(row.number, reason, row.raw)
    return row, media_item_id, segment
