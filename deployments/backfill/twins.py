"""Subtitles of one media item in two formats, whose lines would all be stored twice."""

from collections.abc import Sequence

from deployments.backfill.formats import FORMATS
from deployments.backfill.mapping import RowMapping
from deployments.backfill.rows import UnreadableSource
from deployments.backfill.sources import SourceFile
from deployments.core.errors import InvalidInput
from deployments.core.segments import Id


def refuse_twins(files: Sequence[SourceFile], mapping: RowMapping) -> None:
    """Raise InvalidInput for files such as talk.srt and talk.vtt that are one media item."""
    first: dict[tuple[str, str], SourceFile] = {}
    for file in files:
        media_item_id = _of_path(file, mapping)
        if media_item_id is None:
            continue
        other = first.setdefault((str(media_item_id), file.stem), file)
        # Of one name they can't replace each other, and sidecars may tell them apart.
        if other.name != file.name and _of_all(other, mapping) == _of_all(file, mapping):
            raise InvalidInput(
                f"{other.url} and {file.url} are both the subtitles of one media item, whose lines "
                f"would be stored twice; name one kind of them, as in 'folder/**/*.{other.format}'"
            )


def _of_path(file: SourceFile, mapping: RowMapping) -> Id | None:
    if not FORMATS[file.format].is_media_item:
        return None
    try:
        return mapping.media_item_id(file)
    except UnreadableSource:
        return None


def _of_all(file: SourceFile, mapping: RowMapping) -> str | None:
    try:
        return str(mapping.of_file(file).media_item_id())
    except UnreadableSource:
        return None
