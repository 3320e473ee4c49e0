import datetime
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from legacy_samples import (
    hashes,
    imported_transcripts,
    refusal,
    row,
    texts,
    write_legacy,
)
from storage_samples import (
    MODEL,
    TRANSCRIPT,
    find,
    vectors_of,
)

from deployments.core.folders.legacy_import import import_legacy
from deployments.core.folders.legacy_rows import BadRow
from deployments.core.folders.legacy_types import SampleCheck
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import Segment

UTC = datetime.UTC


def only(old: Path, new: Path, metadata: Any) -> tuple[Any, Segment]:
    """Import one row with this metadata, and read it back."""
    write_legacy(old, texts(1), [metadata])
    import_legacy(old, new, MODEL)
    (((media_item_id, _), found),) = imported_transcripts(new).items()
    return media_item_id, found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (7, 7),
        ("7", "7"),
        ("video-1", "video-1"),
        (np.int64(7), 7),
        (np.str_("a"), "a"),
        (7.0, 7),
        (b"abc", "abc"),
        (-1, -1),
        (0, 0),
    ],
)
def test_ids_keep_their_form(old: Path, new: Path, given: Any, expected: Any) -> None:
    media_item_id, found = only(old, new, {"media_item_id": given, "segment_id": given})
    assert (media_item_id, type(media_item_id)) == (expected, type(expected))
    assert (found.id, type(found.id)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (3, 3),
        (3.5, 3.5),
        (None, None),
        (np.float32(0.5), 0.5),
        (np.int16(4), 4),
        (float("nan"), None),
        ("1.5", 1.5),
        (datetime.timedelta(seconds=90), 90.0),
    ],
)
def test_times_become_seconds(old: Path, new: Path, given: Any, expected: Any) -> None:
    _, found = only(old, new, row(0, start_time=given, end_time=given))
    for time in (found.start_time, found.end_time):
        assert (time, type(time)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ticker": "AAPL", "tags": ["a", "b"], "n": None}, None),
        ({"tags": ("a", 1)}, {"tags": ["a", 1]}),
        ({"tags": {"b", "a"}}, {"tags": ["a", "b"]}),
        ({"at": datetime.datetime(2025, 11, 20, tzinfo=UTC)}, {"at": "2025-11-20T00:00:00+00:00"}),
        ({"day": datetime.date(2025, 2, 3)}, {"day": "2025-02-03"}),
        ({"clock": datetime.time(1, 2)}, {"clock": "01:02:00"}),
        ({"long": datetime.timedelta(minutes=1)}, {"long": 60.0}),
        ({"score": np.float64(0.25), "ok": np.bool_(True)}, {"score": 0.25, "ok": True}),
        ({"when": np.datetime64("2025-01-01", "D")}, {"when": "2025-01-01"}),
        ({"bad": float("nan"), "inf": float("-inf")}, {"bad": None, "inf": None}),
        ({"big": 2**70}, {"big": str(2**70)}),
        ({"raw": b"text", "bin": b"\xff\x00"}, {"raw": "text", "bin": "/wA="}),
        ({"by": {1: "a", None: "b", 2.5: "c"}}, {"by": {"1": "a", "None": "b", "2.5": "c"}}),
        ({"o": OrderedDict([("z", 1), ("a", 2)])}, {"o": {"z": 1, "a": 2}}),
        ({"nest": {"a": [{"b": [1]}]}}, None),
        ({"id": 5, "timestamp": 3}, None),
    ],
)  # fmt: skip
def test_metadata_becomes_json(old: Path, new: Path, given: Any, expected: Any) -> None:
    _, found = only(old, new, row(0, **given))
    assert found.metadata == (given if expected is None else expected)
    assert list(found.metadata) == list(given)


def test_a_missing_segment_id_becomes_the_row(old: Path, new: Path) -> None:
    rows = [row(0), row(1), row(2), row(0, segment_id=1, text="has the name 1")]
    for number in (0, 1):
        del rows[number]["segment_id"]
    rows[2]["segment_id"] = None
    write_legacy(old, texts(4), rows)
    assert import_legacy(old, new, MODEL).types[TRANSCRIPT].duplicates == 0
    found = imported_transcripts(new)
    assert {key: each.text for key, each in found.items()} == {
        (1, 0): "text 0",
        (1, "row-1"): "text 1",
        (1, 2): "text 2",
        (1, 1): "has the name 1",
    }


def test_of_repeated_segments_the_last_row_wins(old: Path, new: Path) -> None:
    rows = [
        row(0, text="text 0"),
        row(1),
        row(0, text="text 2"),
        row(0, segment_id="0", media_item_id="1", text="text 3"),
        row(4),
    ]
    write_legacy(old, texts(5), rows)
    report = import_legacy(old, new, MODEL).types[TRANSCRIPT]
    assert (report.rows, report.imported, report.duplicates) == (5, 3, 2)
    found = imported_transcripts(new)
    assert {key: each.text for key, each in found.items()} == {
        (1, 1): "text 1",
        ("1", "0"): "text 3",
        (2, 4): "text 4",
    }
    with SegmentIndex.open(new, MODEL) as index:
        assert find(index, "text 3", top_k=1)[0].cosine == 1.0


def test_rows_without_text_are_imported_and_counted(old: Path, new: Path) -> None:
    rows = [row(0, text=None), row(1), row(2, text=" ")]
    del rows[1]["text"]
    write_legacy(old, texts(3), rows)
    report = import_legacy(old, new, MODEL, check=SampleCheck(vectors_of, 20))
    assert report.types[TRANSCRIPT].without_text == 3
    assert report.types[TRANSCRIPT].checked == 0
    assert [each.text for each in imported_transcripts(new).values()].count("") == 2


def test_rows_that_a_dict_lacks_are_counted(old: Path, new: Path) -> None:
    write_legacy(old, texts(4), {0: row(0), "3": row(3), 1: None})
    report = import_legacy(old, new, MODEL).types[TRANSCRIPT]
    assert (report.rows, report.imported, report.without_metadata) == (4, 2, 2)
    assert set(imported_transcripts(new)) == {(1, 0), (2, 3)}


BAD: dict[str, tuple[Any, str]] = {
    "no dict": (["text"], "its metadata is a list, expected a dict"),
    "no media item": ({"segment_id": 1, "text": "x"}, "it has no media_item_id"),
    "media item None": (row(1, media_item_id=None), "it has no media_item_id"),
    "empty id": (row(1, segment_id=""), "it has no segment_id"),
    "boolean id": (row(1, media_item_id=True), "media_item_id is True"),
    "list as id": (row(1, segment_id=[1]), "segment_id is [1]"),
    "fraction as id": (row(1, segment_id=1.5), "segment_id is 1.5"),
    "NaN as id": (row(1, media_item_id=float("nan")), "media_item_id is nan"),
    "large id": (row(1, segment_id=2**64), "does not fit 64 bits"),
    "binary id": (row(1, media_item_id=b"\xff"), "its media_item_id is no UTF-8"),
    "text a number": (row(1, text=5), "its text is a int, expected a string"),
    "text broken": (row(1, text="\ud800"), "half of a surrogate pair"),
    "text binary": (row(1, text=b"\xff"), "its text is no UTF-8"),
    "time a word": (row(1, start_time="soon"), "its start_time is 'soon', expected seconds"),
    "time boolean": (row(1, end_time=True), "its end_time is a bool, expected seconds"),
    "time infinite": (row(1, end_time=float("inf")), "expected a finite number of seconds"),
    "key a tuple": (row(1, more={(1, 2): 3}), "its metadata has a tuple as a name"),
    "metadata broken": (row(1, more="\ud800"), "half of a surrogate pair"),
    "metadata huge": (row(1, more=["x"] * 20_000), "more than 10000 values"),
    "metadata long": (row(1, more="x" * 2_000_000), "1000000 characters"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_row_that_can_not_be_taken_is_named(old: Path, new: Path, name: str) -> None:
    bad, reason = BAD[name]
    write_legacy(old, texts(3), [row(0), bad, row(2)])
    message = refusal(old, new, MODEL)
    assert message.startswith(
        "Nothing was imported, since these rows can't be:\n  transcript row 1: "
    )
    assert reason in message
    assert "--skip-bad-rows" in message
    assert hashes(new) == {}
    report = import_legacy(old, new, MODEL, skip_bad_rows=True).types[TRANSCRIPT]
    ((skipped,), imported) = report.skipped, report.imported
    assert (skipped.row, imported) == (1, 2)
    assert reason in skipped.reason
    assert set(imported_transcripts(new)) == {(1, 0), (1, 2)}


def test_metadata_that_contains_itself_is_refused(old: Path, new: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    laughs: list[Any] = ["ha" * 50]
    for _ in range(30):
        laughs = [laughs] * 10
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"deeper": deep}
    write_legacy(old, texts(3), [row(0, more=loop), row(1, more=laughs), row(2, more=deep)])
    message = refusal(old, new, MODEL)
    assert "row 0: its metadata is nested deeper than 32 levels" in message
    assert "row 1: its metadata has more than 10000 values" in message
    assert "row 2: its metadata is nested deeper than 32 levels" in message


def test_vectors_that_are_none_are_refused(old: Path, new: Path) -> None:
    vectors = texts(5)
    vectors[1] = 0
    vectors[2, 3] = np.nan
    vectors[4, 0] = np.inf
    write_legacy(old, vectors, [row(number) for number in range(5)])
    message = refusal(old, new, MODEL)
    assert "transcript row 1: its vector is zero" in message
    assert "transcript row 2: its vector isn't finite" in message
    assert "transcript row 4: its vector isn't finite" in message
    report = import_legacy(old, new, MODEL, skip_bad_rows=True).types[TRANSCRIPT]
    assert [each.row for each in report.skipped] == [1, 2, 4]
    assert set(imported_transcripts(new)) == {(1, 0), (2, 3)}


def test_a_bad_last_row_does_not_win(old: Path, new: Path) -> None:
    vectors = texts(2)
    vectors[1] = 0
    write_legacy(old, vectors, [row(0), row(0, text="bad")])
    report = import_legacy(old, new, MODEL, skip_bad_rows=True).types[TRANSCRIPT]
    assert (report.imported, report.duplicates) == (1, 0)
    assert imported_transcripts(new)[1, 0].text == "text 0"


def test_files_of_different_moments_are_noticed(old: Path, new: Path) -> None:
    write_legacy(old, texts(3), [row(0), row(1)])
    assert "transcript row 2: it has a vector but no metadata" in refusal(old, new, MODEL)
    write_legacy(old, texts(2), [row(0), row(1), row(2)])
    assert "transcript row 2: it has metadata but no vector" in refusal(old, new, MODEL)
    write_legacy(old, texts(2), {0: row(0), 1: row(1), -1: row(2)})
    assert "transcript row -1: it has metadata but no vector" in refusal(old, new, MODEL)
    report = import_legacy(old, new, MODEL, skip_bad_rows=True)
    assert report.types[TRANSCRIPT].skipped == [BadRow(-1, "it has metadata but no vector")]


def test_bad_rows_of_all_types_are_listed_at_once(old: Path, new: Path) -> None:
    write_legacy(old, texts(30), [row(number, text=5) for number in range(30)])
    write_legacy(old, texts(1), [row(0, segment_id=[])], kind="clip")
    write_legacy(old, texts(1), [row(0)], kind="frame")
    message = refusal(old, new, MODEL)
    assert message.count("\n  transcript row ") == 20
    assert "… and 10 more of transcript" in message
    assert "clip row 0: " in message
    assert not (new / "store.sqlite3").exists()
