"""What of a text keyword search compares: its terms."""

import re
import unicodedata
from collections.abc import Container, Sequence
from operator import itemgetter

from deployments.core.storage.stemming import stem

CONNECTORS = "&+-./:'"
"""What may join the parts of one term; a term consists of these, letters and digits."""

Place = tuple[str, int, int]
"""A term, and from where to before where it is written."""

_MOST_CHARS = 64
_MOST_PARTS = 3

# Of scripts without spaces between words: Thai, Lao, Burmese, Khmer, Japanese and Chinese.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_PART = rf"[^\W_{_UNSPACED}]+"
_TERM = re.compile(
    rf"\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|{_PART}(?:[{re.escape(CONNECTORS)}]{_PART})*"
    rf"|(?P<unspaced>(?:(?=[^\W_])[{_UNSPACED}])+)"
)
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])+")
_SEPARATE = re.compile(_PART)
_NUMBER = re.compile(r"[\d,]+(?:\.\d+)?")
_CONTRACTED = re.compile(r"'(?:s|t|re|ve|ll|d|m)$", re.IGNORECASE)
_LETTERS_OR_DIGITS = re.compile(r"\d+|[^\W\d_]+")
# A character with the marks that follow it, or a Korean syllable in its parts.
_CHARACTER = re.compile(r"(?s).[\u0300-\u036f\u1160-\u11ff\u20d0-\u20ff\u3099\u309a]*")
# Marks of kana that make other letters, and no accents.
_VOICED = "\u3099\u309a"
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
    only the parts count. Initials count without their dots too: "U.S." gives `us`. Numbers lose
    their commas. A stop word in capitals is kept: it may be a ticker. Of a script without spaces
    between words, each two neighbouring characters are a term.
    """
    return [term for term, _, _ in _places(_normalized(text))]


def query_terms(text: str) -> list[str]:
    """The terms of a query: stop words count, as if in capitals, where there is nothing else."""
    return terms(text) or terms(text.upper())


def places_of(text: str, wanted: Container[str]) -> list[tuple[int, int]]:
    """Where the text has any of these terms: characters from each start to before its end.

    A range goes from the first to the last of terms with nothing but white space between them.
    """
    plain, starts, ends = _normalized_with_origins(text)
    found: list[tuple[int, int]] = []
    for term, start, end in sorted(_places(plain), key=itemgetter(1, 2)):
        if term not in wanted:
            continue
        first, last = starts[start], ends[end - 1]
        if found and not text[found[-1][1] : first].strip():
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def _places(plain: str) -> list[Place]:
    """The terms of a normalized text, and from where to where each is written."""
    found: list[Place] = []
    for match in _TERM.finditer(plain):
        written, start = match.group(), match.start()
        if match["unspaced"]:
            _add_pairs(found, written, start)
        elif written.isalpha():
            _add(found, written, start)
        elif _NUMBER.fullmatch(written):
            found.append((written.replace(",", "")[:_MOST_CHARS], start, match.end()))
        else:
            _add_compound(found, _CONTRACTED.sub("", written), start)
    return found


def _normalized(text: str) -> str:
    """Compatible characters made equal, and accents removed."""
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFKD", text.translate(_SAME))
    plain = "".join(
        each for each in decomposed if each in _VOICED or not unicodedata.combining(each)
    )
    return unicodedata.normalize("NFC", plain)


def _normalized_with_origins(text: str) -> tuple[str, Sequence[int], Sequence[int]]:
    """As `_normalized`, and for each of its characters where in the text it comes from."""
    if text.isascii():
        return text, range(len(text)), range(1, len(text) + 1)
    parts: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for match in _CHARACTER.finditer(text):
        normal = _normalized(match.group())
        parts.append(normal)
        starts += [match.start()] * len(normal)
        ends += [match.end()] * len(normal)
    return "".join(parts), starts, ends


def _add(found: list[Place], written: str, start: int) -> None:
    word = written.casefold()
    if _IS_STOP_WORD(word) and not (len(written) > 1 and written.isupper()):
        return
    word = word[:_MOST_CHARS]
    term = stem(word) if word.isascii() and word.isalpha() else word
    found.append((term, start, start + len(written)))


def _add_pairs(found: list[Place], written: str, start: int) -> None:
    for i in range(max(1, len(written) - 1)):
        pair = written[i : i + 2]
        found.append((pair.casefold(), start + i, start + i + len(pair)))


def _add_compound(found: list[Place], written: str, start: int) -> None:
    parts = list(_SEPARATE.finditer(written))
    if len(parts) == 1:
        _add(found, written, start)
    elif len(parts) <= _MOST_PARTS and min(len(part.group()) for part in parts) <= 2:
        found.append((written.casefold()[:_MOST_CHARS], start, start + len(written)))
        if _INITIALS.fullmatch(written):
            joined = written.replace(".", "").casefold()
            found.append((joined, start, start + len(written)))
    for part in parts:
        if len(parts) > 1:
            _add(found, part.group(), start + part.start())
        runs = list(_LETTERS_OR_DIGITS.finditer(part.group()))
        if 1 < len(runs) <= _MOST_PARTS:
            for run in runs:
                _add(found, run.group(), start + part.start() + run.start())
