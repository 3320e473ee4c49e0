"""Real sentences for measuring: from a folder of JSON lines, or the samples."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

QUERY_WORDS = 8
LONGEST_SEGMENT_WORDS = 60
"""Longer texts are passages, not what is said or shown in a few seconds of video."""


def read_texts(folder: Path) -> list[str]:
    """The distinct `text` of every line of the folder's *.jsonl files that is a segment's."""
    texts: dict[str, None] = {}
    for file in sorted(folder.rglob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            text = json.loads(line).get("text")
            if isinstance(text, str) and 3 <= len(text.split()) <= LONGEST_SEGMENT_WORDS:
                texts[text] = None
    if not texts:
        raise SystemExit(f"{folder} has no *.jsonl files with lines that have a text")
    return list(texts)


def segments(texts: list[str]) -> Iterator[str]:
    """Distinct segments without end: the texts, then the texts with a number, and so on."""
    yield from texts
    for round_ in itertools.count(2):
        for text in texts:
            yield f"{text} {round_}"


def queries(texts: list[str]) -> Iterator[str]:
    """Distinct queries of eight words without end, so that nothing is answered from a cache."""
    for start in itertools.count():
        for number, text in enumerate(texts):
            words = text.split()
            begin = start % max(1, len(words) - QUERY_WORDS)
            some = " ".join(words[begin : begin + QUERY_WORDS - 1])
            yield f"{some} {number + start * len(texts)}"
