"""What of a text keyword search compares: its terms."""

import re
import unicodedata

from deployments.core.stemming import stem

CONNECTORS = "&+-./:'"
"""What may join the parts of one term; a term consists of these, letters and digits."""

_MOST_CHARS = 64
_MOST_PARTS = 3

_PART = r"[^\W_]+"
_TERM = re.compile(
    rf"\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|{_PART}(?:[{re.escape(CONNECTORS)}]{_PART})*"
)
_SEPARATE = re.compile(_PART)
_NUMBER = re.compile(r"[\d,]+(?:\.\d+)?")
_CONTRACTED = re.compile(r"'(?:s|t|re|ve|ll|d|m)$", re.IGNORECASE)
_LETTERS_OR_DIGITS = re.compile(r"\d+|[^\W\d_]+")
_SAME = str.maketrans("‐‑‒–—−’＇", "------''")

_STOP_WORDS = """
a about again ain all also am an and any are aren as at be because been being both but by can
could couldn did didn do does doesn doing don each for from had hadn has hasn have haven having
he her here hers him his how i if in into is isn it its itself just me mightn mustn my needn
now of on or other our ours she should shouldn so some such than that the their theirs them
then there these they this those through to too was wasn we were weren what when where which
while who whom why will with won would wouldn you your yours
"""
_IS_STOP_WORD = frozenset(_STOP_WORDS.split()).__contains__


def terms(text: str) -> list[str]:
    """The text's terms in their order, in lower case, stemmed, without stop words.

    What is written with connectors or of letters and digits can be found whole and by its parts:
    "10-K" gives `10-k`, `10` and `k`, "EMA200" gives `ema200`, `ema` and `200`; of long compounds
    only the parts count. Numbers lose their commas. A stop word in capitals is kept: it may be a
    ticker.
    """
    found: list[str] = []
    for match in _TERM.finditer(_normalized(text)):
        written = match.group()
        if written.isalpha():
            _add(found, written)
        elif _NUMBER.fullmatch(written):
            found.append(written.replace(",", "")[:_MOST_CHARS])
        else:
            _add_compound(found, _CONTRACTED.sub("", written))
    return found


def _normalized(text: str) -> str:
    """Compatible characters made equal, and accents removed."""
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFKD", text.translate(_SAME))
    plain = "".join(each for each in decomposed if not unicodedata.combining(each))
    return unicodedata.normalize("NFC", plain)


def _add(found: list[str], written: str) -> None:
    word = written.casefold()
    if _IS_STOP_WORD(word) and not (len(written) > 1 and written.isupper()):
        return
    word = word[:_MOST_CHARS]
    found.append(stem(word) if word.isascii() and word.isalpha() else word)


def _add_compound(found: list[str], written: str) -> None:
    parts = _SEPARATE.findall(written)
    if len(parts) == 1:
        _add(found, written)
    elif len(parts) <= _MOST_PARTS and min(map(len, parts)) <= 2:
        found.append(written.casefold()[:_MOST_CHARS])
    for part in parts:
        if len(parts) > 1:
            _add(found, part)
        runs = _LETTERS_OR_DIGITS.findall(part)
        if 1 < len(runs) <= _MOST_PARTS:
            for run in runs:
                _add(found, run)
