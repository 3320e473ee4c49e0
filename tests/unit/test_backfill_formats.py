"""Files of every format, ugly ones too: the rows that readers make of them."""

import io
import itertools
import tracemalloc
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deployments.backfill import subtitles
from deployments.backfill.formats import FORMATS, format_of
from deployments.backfill.lines import MAX_LINE_BYTES, read_lines
from deployments.backfill.rows import BadRow, ReadOptions, Row, UnreadableSource, shown
from deployments.backfill.subtitles import read_subtitles

BOM = b"\xef\xbb\xbf"


def read(form: str, content: bytes, **options: Any) -> list[Row | BadRow]:
    return list(FORMATS[form].read(io.BytesIO(content), ReadOptions(**options)))


def fields(rows: list[Row | BadRow]) -> list[dict[str, Any]]:
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert not bad
    return [row.fields for row in rows if isinstance(row, Row)]


def reasons(rows: list[Row | BadRow]) -> dict[int, str]:
    return {row.number: row.reason for row in rows if isinstance(row, BadRow)}


def numbers(rows: list[Row | BadRow]) -> list[int]:
    return [row.number for row in rows if isinstance(row, Row)]


@pytest.mark.parametrize("form", ["jsonl", "csv", "srt", "vtt"])
@pytest.mark.parametrize("content", [b"", BOM, b"\n\r\n  \n"])
def test_an_empty_file_has_no_rows(form: str, content: bytes) -> None:
    assert read(form, content) == []


class Pieces(io.RawIOBase):
    """A stream that gives its content in pieces of any size."""

    def __init__(self, content: bytes, size: int) -> None:
        self._content = io.BytesIO(content)
        self._size = size

    def read(self, size: int = -1) -> bytes:
        return self._content.read(self._size)


line_text = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]))


@given(st.lists(line_text), st.sampled_from(["\n", "\r\n"]), st.integers(4, 30), st.booleans())
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lines_are_those_of_the_text_in_any_pieces(
    encoding: str, texts: list[str], end: str, size: int, ended: bool
) -> None:
    whole = end.join(texts) + (end if ended and texts else "")
    # With these bytes UTF-32 begins, too.
    assume(encoding != "utf-16" or not whole.startswith("\x00"))
    content = whole.encode(encoding)
    given_encoding = "utf-8" if encoding == "utf-8" else None
    found = [line.text for line in read_lines(Pieces(content, size), given_encoding)]
    expected = whole.removeprefix("\ufeff" if encoding.startswith("utf-8") else "").split("\n")
    if expected[-1] == "":
        expected.pop()
    assert found == [text.removesuffix("\r") for text in expected]


def test_lines_that_are_not_utf8_are_windows_1252_and_others_stay_utf8() -> None:
    content = b'{"text": "caf\xe9 \x93quoted\x94"}\n' + '{"text": "café"}\n'.encode()
    assert fields(read("jsonl", content)) == [{"text": "café “quoted”"}, {"text": "café"}]
    assert fields(read("jsonl", b'{"text": "\x81"}')) == [{"text": "\x81"}]


def test_a_given_encoding_is_strict() -> None:
    rows = read("jsonl", b'{"text": "a"}\n{"text": "\xe9"}', encoding="utf-8")
    assert numbers(rows) == [1]
    assert reasons(rows) == {2: "byte 11 of the line isn't utf-8"}
    assert fields(read("jsonl", '{"text": "цена"}'.encode("cp1251"), encoding="cp1251")) == [
        {"text": "цена"}
    ]
    with pytest.raises(UnreadableSource, match="the encoding 'klingon' is unknown"):
        read("jsonl", b"{}", encoding="klingon")


def test_half_a_character_at_the_end_of_utf16_is_a_bad_row() -> None:
    rows = read("jsonl", '{"text": "a"}\n{"text": "b"}'.encode("utf-16") + b"\x00")
    assert numbers(rows) == [1]
    assert list(reasons(rows)) == [2]


class LongLine(io.RawIOBase):
    """A line of 100 MB between two others, made while it is read."""

    def __init__(self) -> None:
        self._parts = [b'{"text": "first"}\n{"text": "']
        self._parts += [b"x" * 1_000_000] * 100
        self._parts += [b'"}\n{"text": "last"}\n']

    def read(self, size: int = -1) -> bytes:
        return self._parts.pop(0) if self._parts else b""


def test_a_line_of_100_mb_is_a_bad_row_and_takes_little_memory() -> None:
    tracemalloc.start()
    rows = list(FORMATS["jsonl"].read(LongLine(), ReadOptions()))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row.fields["text"] for row in rows if isinstance(row, Row)] == ["first", "last"]
    assert numbers(rows) == [1, 3]
    assert reasons(rows) == {2: f"the line is longer than {MAX_LINE_BYTES:,} bytes"}
    assert most < 20 * MAX_LINE_BYTES
    assert all(len(shown(row.raw)) < 2100 for row in rows)


@pytest.mark.parametrize("form", ["csv", "srt", "vtt"])
def test_a_line_that_is_too_long_costs_one_row_in_other_formats(form: str) -> None:
    long = b"x" * (MAX_LINE_BYTES + 1)
    content = {
        "csv": b"text\nfirst\n" + long + b"\nlast\n",
        "srt": b"00:01 --> 00:02\nfirst\n\n" + long + b"\n\n00:03 --> 00:04\nlast\n",
        "vtt": b"WEBVTT\n\n00:01 --> 00:02\nfirst\n\n" + long + b"\n\n00:03 --> 00:04\nlast\n",
    }[form]
    rows = read(form, content)
    assert [row.fields["text"] for row in rows if isinstance(row, Row)] == ["first", "last"]
    assert [reason.split(" ")[2] for reason in reasons(rows).values()] == ["is"]


def test_json_lines_that_are_no_objects_are_bad_rows() -> None:
    content = b'{"text": "a"}\n[1]\n"text"\nnull\n{"text": \n{"text": "b"}\n' + b"[" * 100_000
    rows = read("jsonl", content)
    assert numbers(rows) == [1, 6]
    found = reasons(rows)
    assert found[2] == "it is a JSON list, expected an object"
    assert found[3] == "it is a JSON str, expected an object"
    assert found[4] == "it is a JSON NoneType, expected an object"
    assert found[5].startswith("it isn't JSON: ")
    assert found[7].startswith("it isn't JSON: ")


def test_csv_with_a_mark_crlf_nested_quotes_and_line_ends_in_cells() -> None:
    content = BOM + (
        b"media_item_id,id,text,note\r\n"
        b'7,1,"He said ""buy the ""dip"""" now, twice","two\r\nlines"\r\n'
        b"\r\n"
        b'7,2,plain,""\r\n'
    )
    rows = read("csv", content)
    assert fields(rows) == [
        {
            "media_item_id": "7",
            "id": "1",
            "text": 'He said "buy the "dip"" now, twice',
            "note": "two\nlines",
        },
        {"media_item_id": "7", "id": "2", "text": "plain"},
    ]
    assert numbers(rows) == [2, 5]


def test_bad_quotes_in_csv_cost_the_rows_that_have_them() -> None:
    content = (
        b'id,text\n1,"said "buy" now"\n2,fine\n3,"never closed\n4,fine too\n5,too,many\n6\n7,last\n'
    )
    rows = read("csv", content)
    assert [row.fields["id"] for row in rows if isinstance(row, Row)] == ["2", "4", "7"]
    found = reasons(rows)
    assert found[2].startswith("it isn't CSV: ")
    assert found[4].endswith("is a quote in it not closed?")
    assert found[6] == "it has 3 cells, and the header 2"
    assert found[7] == "it has 1 cells, and the header 2"
    assert list(found) == [2, 4, 6, 7]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_that_of_the_header(delimiter: str) -> None:
    content = f"id{delimiter}text\n1{delimiter}a\n".encode()
    assert fields(read("csv", content)) == [{"id": "1", "text": "a"}]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"id,words\n1,a\n", "it has no column 'text'; its columns are id, words"),
        (b"id,text,id\n1,a,2\n", "its header has a column twice: id, text, id"),
        (b'id,"te"xt\n', "its header isn't CSV"),
    ],
)
def test_a_csv_header_that_cannot_be_used(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableSource, match=reason):
        read("csv", content, columns=("text",))


SRT = """1
00:00:01,000 --> 00:00:03,500
Support and <i>resistance</i>

2
00:00:03,000 --> 00:00:06,000
overlaps the one before

and goes on after an empty line
3
00:00:05.5 --> 01:00:07
no empty line before

4
-00:00:02,500 --> -00:00:01,000
{\\an8}negative

5
00:00:09,000 --> 00:00:08,000
reversed

6
0:0x --> what
unreadable

7
lost its times

8
00:10 --> 00:11

9
01:02:03,004 --> 01:02:04,000 X1:40 X2:600
last &amp; least"""


def test_srt_with_overlaps_negative_times_and_damage() -> None:
    rows = read("srt", SRT.replace("\n", "\r\n").encode("utf-8-sig"))
    assert [row.fields for row in rows if isinstance(row, Row)] == [
        {"start_time": 1.0, "end_time": 3.5, "text": "Support and resistance"},
        {
            "start_time": 3.0,
            "end_time": 6.0,
            "text": "overlaps the one before and goes on after an empty line",
        },
        {"start_time": 5.5, "end_time": 3607.0, "text": "no empty line before"},
        {"start_time": -2.5, "end_time": -1.0, "text": "negative"},
        {"start_time": 9.0, "end_time": 8.0, "text": "reversed"},
        {"start_time": 3723.004, "end_time": 3724.0, "text": "last & least"},
    ]
    assert reasons(rows) == {
        23: "its times can't be read: 0:0x --> what",
        26: "it has no line with times (-->)",
    }


class Repeated(io.RawIOBase):
    """The same again and again between a beginning and an end."""

    def __init__(self, begin: bytes, again: bytes, times: int, end: bytes) -> None:
        self._parts = itertools.chain([begin], itertools.repeat(again, times), [end])

    def read(self, size: int = -1) -> bytes:
        return next(self._parts, b"")


FIRST, LAST = b"00:01 --> 00:02\nfirst\n", b"\n00:03 --> 00:04\nlast\n"
WITHOUT_TIMES = "it has more than about 65,536 characters without times between"


@pytest.mark.parametrize(
    ("begin", "again", "end", "texts", "reason"),
    [
        (FIRST + b"\n7\n", b"5\nx\n", LAST, ["first", "last"], "it has no line with times (-->)"),
        (FIRST, b"\n\nmore\n", LAST, ["last"], WITHOUT_TIMES),
        (FIRST, b"more and more\n", LAST, ["last"], WITHOUT_TIMES),
        (FIRST, b"more and more\n", LAST.lstrip(), ["last"], WITHOUT_TIMES),
        (FIRST + b"\nNOTE\n", b"more and more\n", LAST, ["first", "last"], None),
    ],
)
def test_subtitles_without_end_are_read_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
    begin: bytes,
    again: bytes,
    end: bytes,
    texts: list[str],
    reason: str | None,
) -> None:
    monkeypatch.setattr(subtitles, "MAX_BLOCK_CHARS", 65_536)
    size = 800_000
    again = again * (20_000 // len(again))
    tracemalloc.start()
    rows = read_subtitles(Repeated(begin, again, size // len(again), end), ReadOptions())
    found = list(rows)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row.fields["text"] for row in found if isinstance(row, Row)] == texts
    assert set(reasons(found).values()) == ({reason} if reason else set())
    assert most < size


def test_cues_without_empty_lines_between_are_read_one_by_one() -> None:
    cue = b"7\n00:05 --> 00:06\ntext\n" * 100
    rows = read_subtitles(Repeated(FIRST, cue, 100, LAST), ReadOptions())
    tracemalloc.start()
    count = sum(isinstance(row, Row) for row in rows)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 10_002
    assert most < 1_000_000


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_an_arrow_in_a_text_or_a_note_is_no_cue(form: str) -> None:
    rows = read(
        form,
        b"WEBVTT\n\nNOTE x --> y\n\n00:01.0 --> 00:02.0\nfrom A --> B\nand 5 --> 6\n\n"
        b"00:03.0 --> 00:04.0\nC -->\n\n--> D\n\nNOTE\n1 --> 2\n\n00:05.0-->00:06.0\nlast\n",
    )
    assert fields(rows) == [
        {"start_time": 1.0, "end_time": 2.0, "text": "from A --> B and 5 --> 6"},
        {"start_time": 3.0, "end_time": 4.0, "text": "C --> --> D"},
        {"start_time": 5.0, "end_time": 6.0, "text": "last"},
    ]


@pytest.mark.parametrize("time", ["9" * 5000 + ":00", "9" * 4000 + ":00"])
def test_a_cue_at_a_time_beyond_numbers_costs_its_row(time: str) -> None:
    rows = read("srt", f"00:01 --> 00:02\na\n\n{time} --> 00:03\nb\n\n00:05 --> 06:00\nc".encode())
    assert [row.fields["text"] for row in rows if isinstance(row, Row)] == ["a", "c"]
    assert [reason[:22] for reason in reasons(rows).values()] == ["its times can't be rea"]


VTT = """WEBVTT - a talk
X-TIMESTAMP-MAP=LOCAL:00:00:00.000

NOTE
not a cue --
really

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.000 align:start position:0%
<v.loud Ada Lovelace>When is a <c.bold>stock</c> over<00:01.500>bought?</v>

00:02.000 --> 00:03.000
- two
- lines &lt;here&gt;

no times

00:03.000 --> 00:04.000
<v Ada>one</v> <v Bob>two</v>
"""


def test_webvtt_with_notes_styles_settings_and_voices() -> None:
    rows = read("vtt", VTT.encode())
    assert fields(rows) == [
        {
            "start_time": 1.0,
            "end_time": 2.0,
            "text": "When is a stock overbought?",
            "speaker": "Ada Lovelace",
        },
        {"start_time": 2.0, "end_time": 3.0, "text": "- two - lines <here> no times"},
        {"start_time": 3.0, "end_time": 4.0, "text": "one two"},
    ]


def test_subtitles_in_latin_1_and_utf16() -> None:
    text = "00:01,0 --> 00:02,0\nAktie überkauft – größer als €5\n"
    expected = [{"start_time": 1.0, "end_time": 2.0, "text": "Aktie überkauft – größer als €5"}]
    for encoding in ("cp1252", "utf-16", "utf-8"):
        assert fields(read("srt", text.encode(encoding))) == expected


def parquet(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer, row_group_size=2)
    return buffer.getvalue()


def test_parquet_values_become_what_json_can_hold() -> None:
    content = parquet(
        {
            "video": pyarrow.array([7.0, None, 9.0]),
            "words": ["a", "b", "c"],
            "begin": pyarrow.array([1.5, float("nan"), 2.0]),
            "price": pyarrow.array([Decimal("1.50"), None, Decimal("2.00")]),
            "when": [datetime(2025, 1, 2, 3, 4), None, None],
            "tags": [["x"], [], None],
            "raw": [b"\xff", None, b"ok"],
        }
    )
    assert fields(read("parquet", content, columns=("words", "video"))) == [
        {
            "video": 7,
            "words": "a",
            "begin": 1.5,
            "price": 1.5,
            "when": "2025-01-02T03:04:00",
            "tags": ["x"],
            "raw": "\ufffd",
        },
        {"words": "b", "tags": []},
        {"video": 9, "words": "c", "begin": 2, "price": 2, "raw": "ok"},
    ]


def test_parquet_decimals_are_what_they_were() -> None:
    given_and_expected = [
        (Decimal("9007199254740993"), 9007199254740993),
        (Decimal("-9007199254740993"), -9007199254740993),
        (Decimal("12345678901234567890"), "12345678901234567890"),
        (Decimal("3.00"), 3),
        (Decimal("0.10"), 0.1),
        (Decimal("1234567890123456789.25"), "1234567890123456789.25"),
    ]
    column = pyarrow.array([value for value, _ in given_and_expected], pyarrow.decimal128(30, 2))
    found = [each["n"] for each in fields(read("parquet", parquet({"n": column})))]
    expected = [value for _, value in given_and_expected]
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


def test_parquet_with_a_column_twice_is_refused() -> None:
    content = io.BytesIO()
    table = pyarrow.table([["a"], [1], [2]], names=["text", "id", "id"])
    pyarrow.parquet.write_table(table, content)
    with pytest.raises(UnreadableSource, match="it has a column twice: text, id, id"):
        read("parquet", content.getvalue())


def test_a_parquet_value_that_python_cannot_hold_costs_its_row() -> None:
    year_10_000 = 253_402_300_800_000
    when = pyarrow.array([0, year_10_000, None, 0], pyarrow.timestamp("ms"))
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": list("abcd"), "when": when}), content)
    rows = read("parquet", content.getvalue())
    epoch = "1970-01-01T00:00:00"
    assert [each.fields for each in rows if isinstance(each, Row)] == [
        {"text": "a", "when": epoch},
        {"text": "c"},
        {"text": "d", "when": epoch},
    ]
    assert numbers(rows) == [1, 3, 4]
    assert reasons(rows) == {
        2: "column 'when' has a value that can't be read: date value out of range"
    }
    assert shown(rows[1].raw) == '{"text": "b"}'


def test_parquet_that_lacks_a_column_or_its_end_or_is_none() -> None:
    content = parquet({"words": [str(number) for number in range(100)]})
    with pytest.raises(UnreadableSource, match="it has no column 'text'; its columns are words"):
        read("parquet", content, columns=("text",))
    for damaged in (content[:-20], content[: len(content) // 2], b"", b"PAR1"):
        with pytest.raises(UnreadableSource, match="it can't be read as Parquet"):
            read("parquet", damaged)


def test_a_damaged_parquet_page_ends_the_file_after_the_rows_before() -> None:
    content = bytearray(parquet({"text": [f"text number {number}" for number in range(4)]}))
    second = pyarrow.parquet.ParquetFile(io.BytesIO(bytes(content))).metadata.row_group(1)
    start = second.column(0).dictionary_page_offset
    content[start : start + 30] = b"\xff" * 30
    with pytest.raises(UnreadableSource, match="it can't be read as Parquet"):
        read("parquet", bytes(content))


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("a/b.jsonl", "jsonl"),
        ("s3://x/B.NDJSON.gz", "jsonl"),
        ("talk.en.srt", "srt"),
        ("talk.vtt.bz2", "vtt"),
        ("table.tsv", "csv"),
        ("table.pq", "parquet"),
        ("talk.json", None),
        ("README", None),
        ("archive.gz", None),
    ],
)
def test_the_format_is_that_of_the_extension(path: str, form: str | None) -> None:
    assert format_of(path) == form
