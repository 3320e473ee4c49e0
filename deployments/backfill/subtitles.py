"""SRT and WebVTT: a cue a row.

Read here and not by a library: those that exist take the whole file, and leave out cues that they
can't read without saying which.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from deployments.backfill.lines import Line, read_lines
from deployments.backfill.rows import BadRow, ReadOptions, Row

ARROW = "-->"
_TIME = r"(?P<{0}>-?\s*(?:\d+:)?\d+:\d+(?:[.,]\d+)?)"
_TIMES = re.compile(rf"\s*{_TIME.format('start')}\s*-->\s*{_TIME.format('end')}(?=\s|$)")
_LIKE_TIMES = re.compile(r"\s*-?\s*\d+:\S*\s*-->")
"""Times, or what is left of them; other lines with an arrow are text."""
_NOT_A_CUE = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)(?:\s|$)")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")


@dataclass(slots=True)
class _Cue:
    times: Line
    text: list[Line] = field(default_factory=list)


def read_subtitles(stream: IO[bytes], options: ReadOptions) -> Iterator[Row | BadRow]:
    """A row for each cue that has a text: `text` without markup, `start_time`, `end_time` in
    seconds, and `speaker` where WebVTT names one voice.

    Takes what occurs: a comma or a point in times, no hours, negative times, no empty line between
    cues, and empty lines in an SRT text.
    """
    cue: _Cue | None = None
    for block in _blocks(read_lines(stream, options.encoding)):
        long = next((line for line in block if line.problem is not None), None)
        if long is not None:
            yield BadRow(long.number, str(long.problem), long.text)
        elif any(_LIKE_TIMES.match(line.text) for line in block):
            before, parts = _parts(block)
            if cue is not None:
                cue.text += before
            for part in parts:
                if cue is not None:
                    yield from _rows(cue)
                cue = part
        elif cue is not None and not _begins_another(block[0].text):
            cue.text += block
        elif not _NOT_A_CUE.match(block[0].text):
            yield BadRow(block[0].number, f"it has no line with times ({ARROW})", _text(block))
    if cue is not None:
        yield from _rows(cue)


def _blocks(lines: Iterator[Line]) -> Iterator[list[Line]]:
    """Lines between empty ones."""
    block: list[Line] = []
    for line in lines:
        if line.problem is None and not line.text.strip():
            if block:
                yield block
            block = []
        else:
            block.append(line)
    if block:
        yield block


def _parts(block: list[Line]) -> tuple[list[Line], list[_Cue]]:
    """A block's cues, and lines before that go on with the cue before.

    A cue begins with a line of times, before which may be a line with its number or name.
    """
    starts = [position for position, line in enumerate(block) if _LIKE_TIMES.match(line.text)]
    cues = []
    for start, end in zip(starts, [*starts[1:], len(block)], strict=True):
        if end < len(block) and block[end - 1].text.strip().isdecimal():
            end -= 1
        cues.append(_Cue(block[start], block[start + 1 : end]))
    return block[: max(0, starts[0] - 1)], cues


def _begins_another(line: str) -> bool:
    """Whether a block without times is no more of the text before it."""
    return line.strip().isdecimal() or _NOT_A_CUE.match(line) is not None


def _rows(cue: _Cue) -> Iterator[Row | BadRow]:
    marked = " ".join(line.text.strip() for line in cue.text)
    number, raw = cue.times.number, _text([cue.times, *cue.text])
    times = _TIMES.match(cue.times.text)
    seconds = _seconds_of(times) if times is not None else None
    if seconds is None:
        yield BadRow(number, f"its times can't be read: {cue.times.text.strip()[:100]}", raw)
        return
    text = " ".join(html.unescape(_MARKUP.sub("", marked)).split())
    if not text:
        return
    fields: dict[str, Any] = {
        "start_time": seconds[0],
        "end_time": seconds[1],
        "text": text,
    }
    voices = set(_VOICE.findall(marked))
    if len(voices) == 1:
        fields["speaker"] = html.unescape(voices.pop()).strip()
    yield Row(number, fields, raw)


def _seconds_of(times: re.Match[str]) -> tuple[float, float] | None:
    try:
        return _seconds(times["start"]), _seconds(times["end"])
    except (ValueError, OverflowError):
        # Python makes no number of some thousand digits.
        return None


def _seconds(time: str) -> float:
    sign = -1 if time.startswith("-") else 1
    *larger, seconds = time.lstrip("- \t").replace(",", ".").split(":")
    minutes = 0
    for part in larger:
        minutes = 60 * minutes + int(part)
    return sign * round(60 * minutes + float(seconds), 3)


def _text(lines: list[Line]) -> str:
    return "\n".join(line.text for line in lines)
