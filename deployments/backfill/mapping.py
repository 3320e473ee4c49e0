"""What a file's rows are in the service's terms: segments of media items."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from deployments.backfill.formats import FORMATS
from deployments.backfill.named_by_position import NamedByPosition
from deployments.backfill.rows import InvalidRow, ReadOptions, Row, UnreadableSource
from deployments.backfill.sidecars import read_sidecar
from deployments.backfill.sources import SourceFile
from deployments.core.api.embed_requests import EmbedRequest
from deployments.core.api.schemas import field_problems
from deployments.core.encoding.segment_images import IMAGE, IMAGE_PATH
from deployments.core.fields import Name, PathName
from deployments.core.segments import EmbeddingType, Id, Segment

EMBEDDED = ("text", "embedding", IMAGE, IMAGE_PATH)
"""Fields of which a segment needs one."""

_NAME: TypeAdapter[Id] = TypeAdapter(PathName)
_ID: TypeAdapter[Id] = TypeAdapter(Name)


@dataclass(frozen=True, slots=True)
class RowMapping:
    """How rows become segments.

    `columns` gives for a field of `/embed` the column that holds it. `metadata` is added to each
    segment. `media_item_pattern` finds the media item in a file's path: by its group
    `media_item_id`, else its first group, else as a whole.
    """

    embedding_type: EmbeddingType
    columns: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    media_item_pattern: re.Pattern[str] | None = None
    max_text_chars: int | None = None

    def read_options(self, encoding: str | None) -> ReadOptions:
        """How to read files, whose tables need what a segment is embedded by."""
        is_mapped = self.columns.keys() & set(EMBEDDED)
        return ReadOptions(encoding, tuple(self.columns.values()), () if is_mapped else EMBEDDED)

    def of_file(self, file: SourceFile, named: NamedByPosition | None = None) -> "FileMapping":
        """The mapping for one file, with what its path and its sidecar say.

        `named` is for files whose name another file of the run has, too.

        Raises UnreadableSource for a path without a media item, or an unusable sidecar.
        """
        defaults: dict[str, Any] = dict(self.metadata)
        media_item_id = self.media_item_id(file)
        if media_item_id is not None:
            defaults["media_item_id"] = media_item_id
        sidecar = read_sidecar(file)
        defaults |= sidecar.metadata
        form = FORMATS[file.format]
        # A table without one of them is refused as a whole.
        columns = {} if form.is_table else {**self.columns}
        unseen = {name: column for name, column in columns.items() if name not in defaults}
        return FileMapping(self, file, form.typed, defaults, named, sidecar.warning, unseen)

    def media_item_id(self, file: SourceFile) -> Id | None:
        """The media item that a file's path tells, for rows without one of their own.

        Raises UnreadableSource for a path in which the pattern isn't.
        """
        if self.media_item_pattern is not None:
            return _name(_matched(self.media_item_pattern, file.path))
        return _name(file.stem) if FORMATS[file.format].is_media_item else None


@dataclass(frozen=True, slots=True)
class FileMapping:
    """How one file's rows become segments. A row's own fields go before the `defaults`.

    `warning` says what of the file isn't used; `unseen` are fields, and their columns, that no row
    has had so far and nothing else gives.
    """

    mapping: RowMapping
    file: SourceFile
    typed: bool
    defaults: Mapping[str, Any]
    named: NamedByPosition | None
    warning: str | None = None
    unseen: dict[str, str] = field(default_factory=dict)

    def segment(self, row: Row) -> tuple[Id, Segment]:
        """The row's media item and segment, by the rules of `/embed`.

        A row without an id is called after its file and its number, `talk.srt:12`: the same row
        gets the same name again. Raises InvalidRow.
        """
        self._look_for_columns(row)
        fields = self._fields(row)
        given = fields.pop("embedding_type", self.mapping.embedding_type)
        if given != self.mapping.embedding_type:
            raise InvalidRow(
                f"embedding_type is {given!r}, and the backfill's {self.mapping.embedding_type}"
            )
        if "id" not in fields and "segment_id" in fields:
            fields["id"] = fields["segment_id"]
        by_position = "id" not in fields
        if by_position:
            fields["id"] = f"{self.file.name}:{row.number}"
        if not self.typed:
            for name in ("media_item_id", "id"):
                if isinstance(fields.get(name), str):
                    fields[name] = _name(fields[name])
        if "media_item_id" not in fields:
            raise InvalidRow(self._described("media_item_id", "the row has none"))
        media_item_id = fields.pop("media_item_id")
        try:
            request = EmbedRequest.model_validate(
                {
                    "media_item_id": media_item_id,
                    "embedding_type": self.mapping.embedding_type,
                    "segments": [fields],
                }
            )
        except ValidationError as error:
            raise InvalidRow(self._reasons(error)) from error
        upsert = request.upsert()
        (segment,) = upsert.segments
        if by_position and self.named is not None:
            self.named.claim(upsert.media_item_id, self.file)
        most = self.mapping.max_text_chars
        if most is not None and len(segment.text) > most:
            raise InvalidRow(
                self._described("text", f"it has {len(segment.text)} characters, at most {most}")
            )
        return upsert.media_item_id, segment

    def media_item_id(self, row: Row | None = None) -> Id | None:
        """The media item of a row that is no segment, or of every row of the file.

        None if that can't be told.
        """
        if row is not None:
            found = self._fields(row).get("media_item_id")
        elif FORMATS[self.file.format].is_media_item:
            found = self.defaults.get("media_item_id")
        else:
            # A row that can't be read may say that it is another one's.
            found = None
        try:
            return _ID.validate_python(found)
        except ValidationError:
            return None

    def _look_for_columns(self, row: Row) -> None:
        if FORMATS[self.file.format].is_table:
            return
        for name in [name for name, column in self.unseen.items() if column in row.fields]:
            del self.unseen[name]
        columns = self.mapping.columns
        for name, column in columns.items():
            # Which of the two was meant?
            if column not in row.fields and name in row.fields.keys() - columns.values():
                raise InvalidRow(
                    f"{name}: the row has no {column!r}, which --map names, but a {name} of its own"
                )

    def _fields(self, row: Row) -> dict[str, Any]:
        return {**self.defaults, **self._renamed(row.fields)}

    def _renamed(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        columns = self.mapping.columns
        if not columns:
            return dict(fields)
        mapped = {name: fields[column] for name, column in columns.items() if column in fields}
        taken = {*columns, *columns.values()}
        return {**{name: fields[name] for name in fields if name not in taken}, **mapped}

    def _reasons(self, error: ValidationError) -> str:
        reasons = []
        for problem in field_problems(error.errors()):
            name = problem.location.removeprefix("segments.0").removeprefix(".").partition(".")[0]
            of_a_field = name not in ("", "body")
            reasons.append(
                self._described(name, problem.message) if of_a_field else problem.message
            )
        return "; ".join(dict.fromkeys(reasons))

    def _described(self, name: str, reason: str) -> str:
        column = self.mapping.columns.get(name)
        return f"{name} (column {column!r}): {reason}" if column else f"{name}: {reason}"


def _name(text: str) -> Id:
    """A media item's or segment's name from a text, where 1 can't be told from "1"."""
    try:
        return _NAME.validate_python(text)
    except ValidationError:
        # The rules of /embed will refuse it, and say why.
        return text


def _matched(pattern: re.Pattern[str], path: str) -> str:
    match = pattern.search(path)
    if match is None:
        raise UnreadableSource(f"the media item pattern {pattern.pattern!r} doesn't match its path")
    if "media_item_id" in pattern.groupindex:
        found = match["media_item_id"]
    else:
        found = match[1] if pattern.groups else match[0]
    if not found:
        raise UnreadableSource(f"the media item pattern {pattern.pattern!r} finds nothing in it")
    return found
