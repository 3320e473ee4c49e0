"""Lines of text files: of bounded length, and in the encodings that occur."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from deployments.backfill.rows import MAX_RAW_CHARS, UnreadableSource

MAX_LINE_BYTES = 1024 * 1024
"""Of a line; a longer one isn't read as a whole. The longest text that the service takes has 20,000
characters, at most 240 kB in JSON."""

_BLOCK_BYTES = 256 * 1024
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end; with a `problem`, `text` is the beginning of what can't be read."""

    number: int
    text: str
    problem: str | None = None


def read_lines(stream: IO[bytes], encoding: str | None) -> Iterator[Line]:
    """The lines of a file, ended by LF or CRLF.

    A byte order mark decides. Without one and without an `encoding`, each line is UTF-8, and if it
    isn't valid as that, Windows-1252: text in another encoding is hardly ever valid UTF-8, while
    guessing from letter frequencies errs on short files. Raises UnreadableSource for an unknown
    encoding.
    """
    first = stream.read(_BLOCK_BYTES)
    mark = next((mark for mark in _MARKS if first.startswith(mark)), b"")
    blocks = _blocks(first[len(mark) :], stream)
    if mark:
        if mark != codecs.BOM_UTF8:
            blocks = _transcoded(blocks, _MARKS[mark])
        encoding = "utf-8"
    elif encoding is not None:
        name = _known(encoding)
        if name.startswith(("utf-16", "utf-32")):
            little = name if name.endswith(("-le", "-be")) else f"{name}-le"
            blocks, encoding = _transcoded(blocks, little), "utf-8"
    for number, (data, whole) in enumerate(_split(blocks), 1):
        yield _line(number, data, whole, encoding)


def _line(number: int, data: bytes, whole: bool, encoding: str | None) -> Line:
    data = data.removesuffix(b"\r")
    if not whole:
        return Line(
            number,
            data[:MAX_RAW_CHARS].decode(encoding or "utf-8", "replace"),
            f"the line is longer than {MAX_LINE_BYTES:,} bytes",
        )
    try:
        return Line(number, data.decode(encoding or "utf-8"))
    except UnicodeDecodeError as error:
        if encoding is None:
            return Line(number, _windows_1252(data))
        return Line(
            number,
            data[:MAX_RAW_CHARS].decode(encoding, "replace"),
            f"byte {error.start + 1} of the line isn't {encoding}",
        )


def _windows_1252(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        # Windows-1252 leaves five bytes undefined.
        return data.decode("latin-1")


def _known(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        raise UnreadableSource(
            f"the encoding {encoding!r} is unknown; examples: utf-8, utf-16, latin-1, cp1251"
        ) from None


def _blocks(first: bytes, stream: IO[bytes]) -> Iterator[bytes]:
    yield first
    while block := stream.read(_BLOCK_BYTES):
        yield block


def _transcoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """The blocks as UTF-8, where an end of line is one byte."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    for block in blocks:
        yield decoder.decode(block).encode("utf-8", "surrogatepass")
    if decoder.getstate()[0]:
        # Half a character at the end: no UTF-8 either, so that the line is found to be bad.
        yield b"\xff"


def _split(blocks: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Lines, and whether they are whole; of one that is too long only the beginning."""
    rest, whole = b"", True
    for block in blocks:
        first, *others = block.split(b"\n")
        for part in (first, *others[:-1]) if others else ():
            yield _bounded(rest + part if whole else rest, whole)
            rest, whole = b"", True
        if others:
            rest = others[-1]
        elif whole:
            rest += first
        if len(rest) > MAX_LINE_BYTES:
            rest, whole = rest[:MAX_RAW_CHARS], False
    if rest:
        yield _bounded(rest, whole)


def _bounded(data: bytes, whole: bool) -> tuple[bytes, bool]:
    if whole and len(data) > MAX_LINE_BYTES:
        return data[:MAX_RAW_CHARS], False
    return data, whole
