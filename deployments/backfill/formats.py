"""Which reader is for which file."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from deployments.backfill.delimited import read_delimited
from deployments.backfill.json_lines import read_json_lines
from deployments.backfill.parquet import read_parquet
from deployments.backfill.rows import Reader
from deployments.backfill.subtitles import read_subtitles

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lzma")
"""Extensions after that of the format; fsspec decompresses what it knows."""


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file.

    `typed` tells whether an integer in it can be told from a string that looks like one;
    `is_table` whether all rows have the same columns; `is_media_item` whether a file is one media
    item, called as the file, unless it says otherwise.
    """

    extensions: tuple[str, ...]
    read: Reader
    typed: bool = True
    is_table: bool = False
    is_media_item: bool = False


FORMATS = {
    "jsonl": Format((".jsonl", ".ndjson"), read_json_lines),
    "csv": Format((".csv", ".tsv"), read_delimited, typed=False, is_table=True),
    "parquet": Format((".parquet", ".pq"), read_parquet, is_table=True),
    "srt": Format((".srt",), read_subtitles, is_media_item=True),
    "vtt": Format((".vtt",), read_subtitles, is_media_item=True),
}


def format_of(path: str) -> str | None:
    """The name of a file's format by its extension, None if that isn't one of a format."""
    extension = PurePosixPath(without_compression(path)).suffix.lower()
    return next((name for name, each in FORMATS.items() if extension in each.extensions), None)


def without_compression(path: str) -> str:
    """The path without an extension such as .gz."""
    name = PurePosixPath(path)
    return str(name.with_suffix("")) if name.suffix.lower() in COMPRESSED else path
