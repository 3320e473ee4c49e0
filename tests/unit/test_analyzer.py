import sqlite3
from contextlib import closing

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deployments.core.storage import schema_sql
from deployments.core.storage.analyzer import CONNECTORS, places_of, query_terms, terms
from deployments.core.storage.stemming import stem

WORDS = """
caresses ponies ties caress cats feed agreed plastered bled motoring sing conflated troubled
sized hopping tanned falling hissing fizzed failing filing happy sky relational conditional
rational valenci hesitanci digitizer conformably radically differently vilely analogously
vietnamization predication operator feudalism decisiveness hopefulness callousness formality
sensitivity sensibility triplicate formative formalize electricity electrical hopeful goodness
revival allowance inference airliner gyroscopic adjustable defensible irritant replacement
adjustment dependent adoption communism activate angularity homologous effective bowdlerize
probate rate cease controll roll technology possibly overbought yields yellow by as oed
"""
SUFFIXES = ("", "s", "es", "ed", "ing", "y", "e", "ational", "izer", "ation", "iveness")
SUFFIXES += ("biliti", "logi", "icate", "ful", "ement", "ion", "ll")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The S&P 500", ["s&p", "s", "p", "500"]),
        ("a 10-K", ["10-k", "10", "k"]),
        ("a 10‑K", ["10-k", "10", "k"]),
        ("an R:R of 3:1", ["r:r", "r", "r", "3:1", "3", "1"]),
        ("EMA200", ["ema200", "ema", "200"]),
        ("EMA 200", ["ema", "200"]),
        ("$1,234.50, 12%", ["1234.50", "12"]),
        ("cost-plus contracts", ["cost", "plu", "contract"]),
        ("risk/reward and U.S.", ["risk", "reward", "u.s", "us", "u", "s"]),
        ("company's, it’s, don't, O'Neill", ["compani", "o'neill", "o", "neill"]),
        ("now NOW it IT A", ["now", "it"]),
        ("A.I. and the U.S.A.", ["a.i", "ai", "u.s.a", "usa", "u", "s"]),
        ("移动平均线", ["移动", "动平", "平均", "均线"]),
        ("RSI指标 线", ["rsi", "指标", "线"]),
        ("トレンド", ["トレ", "レン", "ンド"]),
        ("หุ้น", ["หน"]),
        ("이동 평균선", ["이동", "평균선"]),
        ("Café ＲＳＩ", ["cafe", "rsi"]),
        ("overbought or Overbought?", ["overbought", "overbought"]),
        ("a1b2c3d4", ["a1b2c3d4"]),
        ("a/b/c/d", ["b", "c", "d"]),
        ("? … 🎉 \x00", []),
        ("", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_a_query_of_stop_words_alone_asks_for_tickers() -> None:
    assert query_terms("now") == query_terms("NOW") == terms("we bought NOW")[1:] == ["now"]
    assert query_terms("what is it now trading at") == ["trade"]
    assert query_terms("a") == []


def test_a_term_is_not_endless() -> None:
    assert terms("x" * 1000) == terms("x" * 2000) == ["x" * 64]


@settings(deadline=None)
@given(st.text() | st.text(alphabet="aZ9 " + CONNECTORS + ',"*^()\0éßİ１'))
def test_the_index_takes_terms_as_they_come(text: str) -> None:
    """Whatever a term is made of, FTS5 neither splits nor changes it."""
    found = terms(text)
    assert " ".join(found).split(" ") == (found or [""])
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(schema_sql.script())
        connection.execute("INSERT INTO keywords (rowid, clip) VALUES (1, ?)", (" ".join(found),))
        indexed = connection.execute("SELECT term FROM keyword_places ORDER BY offset").fetchall()
    assert [term for (term,) in indexed] == found


def porter(words: list[str]) -> list[str]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE VIRTUAL TABLE words USING fts5(word, tokenize='porter ascii')")
        connection.execute("CREATE VIRTUAL TABLE stems USING fts5vocab(words, instance)")
        connection.executemany("INSERT INTO words (rowid, word) VALUES (?,?)", enumerate(words))
        return [term for (term,) in connection.execute("SELECT term FROM stems ORDER BY doc")]


def test_stems_are_those_of_sqlite() -> None:
    assert [stem(word) for word in WORDS.split()] == porter(WORDS.split())


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            "".join,
            st.tuples(
                st.text("aeioubcstlyz", min_size=2, max_size=6),
                st.sampled_from(SUFFIXES),
            ),
        ),
        min_size=1,
        max_size=50,
    )
)
@example(["yyed"])
def test_stems_of_anything_are_those_of_sqlite(words: list[str]) -> None:
    assert [stem(word) for word in words] == porter(words)


@pytest.mark.parametrize(
    ("query", "text", "marked"),
    [
        ("S&P 500", "Yesterday the S&P 500 fell.", ["S&P 500"]),
        ("S&P", "The S&P 500 and the S&P", ["S&P", "S&P"]),
        ("10-K filings", "Read the 10‑K filing.", ["10‑K filing"]),
        ("EMA", "Price over EMA200, ema.", ["EMA", "ema"]),
        ("ema 200", "Price over EMA200.", ["EMA200"]),
        ("R:R", "An R:R of two", ["R:R"]),
        ("1234.5", "Revenue was $1,234.5 million", ["1,234.5"]),
        ("falling yields", "Yields fell; yield is falling", ["Yields", "yield", "falling"]),
        ("rsi", "RSI's value", ["RSI"]),
        ("cafe", "un cafe\u0301, CAFÉ!", ["cafe\u0301", "CAFÉ"]),
        ("fine", "a ﬁne ½ day", ["ﬁne"]),
        ("1", "a ½ day", ["½"]),
        ("the", "the end", []),
        ("", "the end", []),
        ("end", "", []),
    ],
)
def test_what_is_highlighted(query: str, text: str, marked: list[str]) -> None:
    places = places_of(text, set(terms(query)))
    assert [text[start:end] for start, end in places] == marked


words = st.text(st.sampled_from("abS&P5 10-Ké\u0301ﬁ½한\u1112\u1161\u11ab.,':\n")) | st.text()


@given(words, words)
def test_highlights_are_where_the_terms_are(text: str, query: str) -> None:
    wanted = set(terms(query))
    places = places_of(text, wanted)
    assert bool(places) == bool(wanted & set(terms(text)))
    ends = [0]
    for start, end in places:
        assert ends[-1] <= start < end <= len(text)
        ends.append(end)
