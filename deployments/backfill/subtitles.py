"""SRT and WebVTT: a cue a row.

Read here and not by a library: those that exist take the whole file, and leave out cues that they
can't read without saying which.
"""

import html
import re
from collections.abc import Iterable, Iterator
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


MAX_BLOCK_CHARS = 1024 * 1024
"""Of lines without an empty one or times between, and of a cue's text. The longest text that the
service takes has 20,000 characters, unless set otherwise."""
_CHARS_OF_A_LINE = 100
"""That count for a line beside its own, so that many empty ones are bounded, too."""


@dataclass(slots=True)
class _Lines:
    """Lines of bounded length: of more, only the first ones are kept."""

    kept: list[Line] = field(default_factory=list)
    is_whole: bool = True
    _chars: int = 0

    def add(self, lines: Iterable[Line], *, are_all: bool = True) -> None:
        """Add lines, and whether these are all that there were."""
        self.is_whole &= are_all
        for line in lines:
            self._chars += len(line.text) + _CHARS_OF_A_LINE
            if self._chars > MAX_BLOCK_CHARS:
                self.is_whole = False
                return
            self.kept.append(line)

    def take_number(self) -> list[Line]:
        """Take the last line away if it is the number of what follows."""
        is_number = self.is_whole and self.kept[-1].text.strip().isdecimal()
        return [self.kept.pop()] if is_number else []


@dataclass(slots=True)
class _Cue:
    times: Line
    text: _Lines = field(default_factory=_Lines)


def read_subtitles(stream: IO[bytes], options: ReadOptions) -> Iterator[Row | BadRow]:
    """A row for each cue that has a text: `text` without markup, `start_time`, `end_time` in
    seconds, and `speaker` where WebVTT names one voice.

    Takes what occurs: a comma or a point in times, no hours, negative times, no empty line between
    cues, and empty lines in an SRT text.
    """
    cue: _Cue | None = None
    for block in _blocks(read_lines(stream, options.encoding)):
        lines = block.kept
        long = next((line for line in lines if line.problem is not None), None)
        times = next((n for n, line in enumerate(lines) if _LIKE_TIMES.match(line.text)), None)
        if long is not None:
            yield BadRow(long.number, str(long.problem), long.text)
        elif times is not None:
            if cue is not None:
                # Before times may be a number or a name, and before that more of the last text.
                cue.text.add(lines[: max(0, times - 1)])
                yield from _rows(cue)
            cue = _Cue(lines[times])
            cue.text.add(lines[times + 1 :], are_all=block.is_whole)
        elif cue is not None and not _begins_another(lines[0].text):
            cue.text.add(lines, are_all=block.is_whole)
        elif not _NOT_A_CUE.match(lines[0].text):
            yield BadRow(lines[0].number, f"it has no line with times ({ARROW})", _text(lines))
    if cue is not None:
        yield from _rows(cue)


def _blocks(lines: Iterator[Line]) -> Iterator[_Lines]:
    """Lines between empty ones, and of each cue where cues have none between."""
    block, has_times = _Lines(), False
    for line in lines:
        is_times = _LIKE_TIMES.match(line.text) is not None
        is_empty = line.problem is None and not line.text.strip()
        if is_empty or (is_times and (has_times or not block.is_whole)):
            number = block.take_number() if is_times else []
            if block.kept:
                yield block
            block, has_times = _Lines(number), False
        if not is_empty:
            block.add([line])
            has_times = has_times or is_times
    if block.kept:
        yield block


def _begins_another(line: str) -> bool:
    """Whether a block without times is no more of the text before it."""
    return line.strip().isdecimal() or _NOT_A_CUE.match(line) is not None


def _rows(cue: _Cue) -> Iterator[Row | BadRow]:
    marked = " ".join(line.text.strip() for line in cue.text.kept)
    number, raw = cue.times.number, _text([cue.times, *cue.text.kept])
    if not cue.text.is_whole:
        reason = f"it has more than about {MAX_BLOCK_CHARS:,} characters without times between"
        yield BadRow(number, reason, raw)
        return
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
