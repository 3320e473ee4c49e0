"""Backfills from files to a service: rows, calls, stops and goings on."""

import asyncio
import gzip
import json
import os
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from backfill_runs import Backfill, fail_at, row, texts
from fsspec.utils import compressions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.backfill import calls, progress_file, sender
from deployments.backfill import run as run_module
from deployments.backfill.file_progress import FileProgress
from deployments.backfill.sources import SourceFile, find_files
from deployments.core.errors import InvalidInput, NotReady, StoreDamaged
from deployments.core.segments import EmbeddingType, Segment
from tests.fakes import FakeService


async def test_rows_of_every_format_are_stored(backfill: Backfill) -> None:
    backfill.write_rows("a/rows.jsonl", [row(1, 1, "one", start_time=0, tags=["x"])])
    backfill.write("a/rows.csv", "media_item_id,id,text,start_time,ticker\n2,1,two,1.5,SPY\n")
    backfill.write("a/b/talk 7.srt", "1\n00:01,0 --> 00:02,0\nthree\n")
    backfill.write("a/b/5.vtt", "WEBVTT\n\n00:01.0 --> 00:02.0\n<v Ada>four\n")
    pyarrow.parquet.write_table(
        pyarrow.table({"media_item_id": [3], "id": ["x"], "text": ["five"], "n": [4]}),
        backfill.folder / "a/rows.parquet",
    )
    backfill.write("a/ignored.txt", "no format")
    assert await backfill.run("a") == 0
    assert backfill.service.stored == {
        ("1", "1"): Segment(1, "one", 0, None, {"tags": ["x"]}),
        ("2", "1"): Segment(1, "two", 1.5, None, {"ticker": "SPY"}),
        ("talk 7", "talk 7.srt:2"): Segment("talk 7.srt:2", "three", 1.0, 2.0, {}),
        ("5", "5.vtt:3"): Segment("5.vtt:3", "four", 1.0, 2.0, {"speaker": "Ada"}),
        ("3", "x"): Segment("x", "five", None, None, {"n": 4}),
    }
    # Where 7 can't be told from "7", it is the integer, as in a URL.
    assert {type(call.media_item_id) for call in backfill.service.calls} == {int, str}
    assert [call.media_item_id for call in backfill.service.calls if call.media_item_id == 5] == [5]
    assert (backfill.tally.files, backfill.tally.rows, backfill.tally.stored) == (5, 5, 5)


async def test_rows_may_bring_vectors_of_their_own(backfill: Backfill) -> None:
    unit = np.array([0.6, 0.8], "<f4").tobytes()
    backfill.write_rows("rows.jsonl", [row(1, 1, "one", embedding=[3, 4])])
    pyarrow.parquet.write_table(
        pyarrow.table({"media_item_id": [2], "id": ["x"], "vector": [[6.0, 8.0]]}),
        backfill.folder / "rows.parquet",
    )
    assert await backfill.run("rows.jsonl") == 0
    assert await backfill.run("rows.parquet", columns={"embedding": "vector"}) == 0
    assert backfill.service.stored == {
        ("1", "1"): Segment(1, "one", embedding=unit),
        ("2", "x"): Segment("x", "", embedding=unit),
    }


async def test_rows_may_bring_images_instead_of_texts(backfill: Backfill) -> None:
    backfill.write_rows("rows.jsonl", [{"media_item_id": 1, "id": 1, "image_path": "1.jpg"}])
    backfill.write("rows.csv", "media_item_id,id,image_path\n2,1,2.jpg\n2,2,\n")
    pyarrow.parquet.write_table(
        pyarrow.table({"media_item_id": [3, 4], "id": [1, 1], "image": ["aGk=", None]}),
        backfill.folder / "rows.parquet",
    )
    backfill.write("mapped.csv", "media_item_id,id,file,text\n5,1,5.jpg,\n")
    assert await backfill.run("rows.*", kind=EmbeddingType.FRAME) == 2
    missing = "a text is required, unless there is an embedding or an image"
    assert backfill.reasons == {("rows.csv", 3): missing, ("rows.parquet", 2): missing}
    assert await backfill.run("mapped.csv", columns={"image_path": "file"}) == 0
    assert backfill.service.stored == {
        ("1", "1"): Segment(1, "", metadata={"image_path": "1.jpg"}),
        ("2", "1"): Segment(1, "", metadata={"image_path": "2.jpg"}),
        ("3", "1"): Segment(1, "", metadata={"image": "aGk="}),
        ("5", "1"): Segment(1, "", metadata={"image_path": "5.jpg"}),
    }


@pytest.mark.parametrize("column", ["text", "embedding", "image", "image_path"])
async def test_a_table_needs_a_column_that_segments_are_embedded_by(
    backfill: Backfill, column: str
) -> None:
    backfill.write("none.csv", "media_item_id,id,words\n1,1,a\n")
    backfill.write("one.csv", f"media_item_id,id,{column}\n1,1,\n")
    await backfill.run("*.csv")
    assert {where for where, reason in backfill.reasons.items() if "column" in reason} == {
        ("none.csv", None)
    }
    assert backfill.reasons["none.csv", None] == (
        "it has none of the columns 'text', 'embedding', 'image', 'image_path'; "
        "its columns are media_item_id, id, words"
    )
    await backfill.run("none.csv", columns={column: "words"})
    assert "none of the columns" not in str(backfill.reasons)


async def test_bad_rows_are_put_aside_with_the_field_and_the_rest_is_stored(
    backfill: Backfill,
) -> None:
    good = [row(1, number) for number in range(5)]
    bad: list[Any] = [
        row(1, 6, "  "),
        row(1, 7, start_time=4, end_time=3),
        row(1, 8, price=1e999),
        {"id": 9, "text": "no media item"},
        row(None, 10),
        row(1, True),
        {"media_item_id": 1, "id": 11},
        row(1, 12, embedding_type="frame"),
        row(1, 13, "x" * 51),
        row(1, 14, segment_id=15),
        row(1, 16, "poison"),
    ]
    backfill.write_rows("rows.jsonl", [*good[:2], *bad, *good[2:]])
    assert await backfill.run("rows.jsonl", max_text_chars=50) == 2
    assert backfill.service.texts() == texts(good)
    assert list(backfill.reasons.values()) == [
        "text: must contain more than white space",
        "end_time (3) is before start_time (4)",
        "must not contain NaN or Infinity",
        "media_item_id: the row has none",
        "media_item_id: Input should be a valid integer; media_item_id: Input should be a valid "
        "string",
        "id: Input should be a valid integer; id: Input should be a valid string",
        "a text is required, unless there is an embedding or an image",
        "embedding_type is 'frame', and the backfill's transcript",
        "text: it has 51 characters, at most 50",
        "segment 0 has a segment_id of its own that differs from 14",
        "refused by the service: a text is poisoned",
    ]
    assert [number for _, number in backfill.reasons] == list(range(3, 14))
    assert json.loads(backfill.quarantined[0]["raw"]) == bad[0]
    assert "11 quarantined" in backfill.shown
    assert "rows.jsonl:3: text: must contain more than white space" in backfill.shown


async def test_a_number_that_is_too_large_to_be_one_costs_its_row(backfill: Backfill) -> None:
    large = '{"media_item_id": 1, "id": 2, "text": "x", "start_time": 1' + "0" * 400 + "}\n"
    first, last = json.dumps(row(1, 1)), json.dumps(row(1, 3))
    backfill.write("rows.jsonl", f"{first}\n{large}{last}\n")
    assert await backfill.run("rows.jsonl") == 2
    assert backfill.service.texts() == texts([row(1, 1), row(1, 3)])
    assert list(backfill.reasons) == [("rows.jsonl", 2)]


async def test_columns_metadata_and_media_items_come_from_where_the_options_say(
    backfill: Backfill,
) -> None:
    rows = [{"segment_id": 4, "caption": "one", "at": 2, "video_id": 9, "course": "own", "text": 1}]
    backfill.write_rows("show/s01/rows.jsonl", rows)
    backfill.write("show/s01/rows.json", '\ufeff{"course": "sidecar", "season": 1}')
    code = await backfill.run(
        "show/*/rows.jsonl",
        kind=EmbeddingType.FRAME,
        columns={"text": "caption", "timestamp": "at"},
        metadata={"course": "flag", "source": "flag"},
        media_item_pattern=re.compile(r"/(s\d+)/"),
    )
    assert code == 0
    expected = {"course": "own", "season": 1, "source": "flag", "video_id": 9}
    assert backfill.service.stored == {("s01", "4"): Segment(4, "one", 2, None, expected)}
    await backfill.run("show", kind=EmbeddingType.FRAME, columns={"text": "caption"})
    assert backfill.reasons == {("show/s01/rows.jsonl", 1): "media_item_id: the row has none"}
    await backfill.run("show", columns={"text": "caption", "media_item_id": "video_id"})
    assert backfill.service.stored["9", "4"].metadata["course"] == "own"


async def test_rows_without_ids_get_the_same_ones_again(backfill: Backfill) -> None:
    rows = [{"media_item_id": 1, "text": f"text {number}"} for number in range(3)]
    backfill.write_rows("a/rows.jsonl", rows)
    await backfill.run("a/rows.jsonl")
    await backfill.run("a")
    names = {("1", f"rows.jsonl:{number}") for number in (1, 2, 3)}
    assert set(backfill.service.stored) == names
    assert backfill.service.encoded == 3


async def test_files_of_one_name_do_not_replace_each_other(backfill: Backfill) -> None:
    backfill.write_rows("a/rows.jsonl", [{"media_item_id": 1, "text": "a"}])
    backfill.write_rows("b/rows.jsonl", [{"media_item_id": n, "text": "b"} for n in (1, 2)])
    assert await backfill.run("a", "b") == 2
    assert backfill.service.texts() == {
        ("1", "rows.jsonl:1"): "a",
        ("2", "rows.jsonl:2"): "b",
    }
    assert "rows.jsonl would be the same" in backfill.reasons["b/rows.jsonl", 1]


@pytest.mark.parametrize("before", ["a", "b"])
async def test_files_of_one_name_do_not_replace_each_other_after_a_stop(
    backfill: Backfill, before: str
) -> None:
    backfill.write_rows("a/rows.jsonl", [{"media_item_id": 1, "text": "a"}, row(9, 9)])
    backfill.write_rows("b/rows.jsonl", [{"media_item_id": n, "text": "b"} for n in (1, 2)])
    expected = {("1", "rows.jsonl:1"): before}
    if before == "a":
        await fail_at(backfill, "9", "a")
    else:
        await backfill.run("b", progress=True)
        expected["2", "rows.jsonl:2"] = "b"
    assert backfill.service.texts() == expected
    order = ("a", "b") if before == "a" else ("b", "a")
    assert await backfill.run(*order, progress=True) == 2
    assert backfill.service.texts() == {
        ("1", "rows.jsonl:1"): before,
        ("2", "rows.jsonl:2"): "b",
        ("9", "9"): "text 9 of 9",
    }
    assert len(backfill.reasons) == 1


async def test_calls_hold_many_segments_of_one_media_item_and_several_are_in_flight(
    backfill: Backfill,
) -> None:
    rows = [row(number % 7, number) for number in range(2000)]
    backfill.write_rows("rows.jsonl", rows)
    assert await backfill.run("rows.jsonl") == 0
    assert backfill.service.texts() == texts(rows)
    sizes = [len(call.segments) for call in backfill.service.calls]
    assert max(sizes) == 100
    assert len(sizes) == 21
    assert backfill.service.most_in_flight > 2


async def test_calls_are_bounded_by_characters_those_of_a_sidecar_too(
    backfill: Backfill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "CHARS_PER_CALL", 3000)
    backfill.write("rows.json", json.dumps({"notes": "x" * 900}))
    backfill.write_rows("rows.jsonl", [row(1, number) for number in range(7)])
    assert await backfill.run("rows.jsonl") == 0
    assert [len(call.segments) for call in backfill.service.calls] == [3, 3, 1]


def test_what_waits_for_company_is_bounded_by_characters() -> None:
    progress = FileProgress(SourceFile("rows.jsonl", "rows.jsonl", "jsonl", None, "", None))
    items = [
        calls.Item(number % 50, Segment(number, "x"), progress, number, number, "", 900_000)
        for number in range(200)
    ]
    groups = calls.CallGroups()
    sent: list[calls.Item] = []
    waiting = []
    for count, item in enumerate(items, 1):
        for call in groups.add(item):
            sent += call.items
        waiting.append(900_000 * (count - len(sent)))
    assert calls.WINDOW_CHARS - 900_000 < max(waiting) <= calls.WINDOW_CHARS
    sent += [item for call in groups.rest() for item in call.items]
    assert sorted(sent, key=lambda item: item.number) == items


ids = st.integers(0, 4)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(ids, ids, st.sampled_from(["a", "b", "poison", ""])), max_size=60),
    st.randoms(use_true_random=False),
)
async def test_what_is_stored_is_the_last_good_row_of_each_id(
    backfill: Backfill, drawn: list[tuple[int, int, str]], pick: random.Random
) -> None:
    rows = [{"media_item_id": m, "id": i, "text": t} for m, i, t in drawn]
    backfill.write_rows("rows.jsonl", rows)
    backfill.service = FakeService([0.0] * pick.randrange(3))
    await backfill.run("rows.jsonl")
    good = [each for each in rows if each["text"] in ("a", "b")]
    assert backfill.service.texts() == texts(good)
    assert backfill.tally.stored == len(good)
    assert [each["row"] for each in sorted(backfill.quarantined, key=lambda e: e["row"])] == [
        number for number, each in enumerate(rows, 1) if each not in good
    ]


async def test_a_postponed_call_is_sent_again_and_fewer_are_in_flight(
    backfill: Backfill, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(1, number) for number in range(300)]
    backfill.write_rows("rows.jsonl", rows)
    backfill.service = FakeService([0.001] * 5)
    assert await backfill.run("rows.jsonl") == 0
    assert backfill.service.texts() == texts(rows)
    assert backfill.tally.postponed_calls == 5


def test_pressure_halves_once_a_round_and_grows_by_one() -> None:
    pressure = sender.Pressure(calls=16)
    for _ in range(16):
        pressure.refused(began=1.0, now=2.0)
    assert pressure.calls == 8
    pressure.refused(began=2.0, now=3.0)
    assert pressure.calls == 4
    for _ in range(4):
        pressure.answered(seconds=0.1)
    assert 4.9 <= pressure.calls <= 5
    for _ in range(1000):
        pressure.answered(seconds=100.0)
    assert pressure.calls == sender.FEWEST_CALLS
    for _ in range(100_000):
        pressure.answered(seconds=0.1)
    assert pressure.calls == sender.MOST_CALLS


async def test_a_service_that_stays_away_ends_the_backfill(
    backfill: Backfill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "FIRST_PATIENCE_S", 0.05)
    backfill.write_rows("rows.jsonl", [row(1, 1)])
    backfill.service = FakeService([0.02] * 1000)
    with pytest.raises(NotReady, match="nothing could be stored for 0 s: too much waits"):
        await backfill.run("rows.jsonl")
    assert backfill.tally.exit_code == 1


async def test_an_error_that_repeating_does_not_help_ends_it(backfill: Backfill) -> None:
    async def embed(_: Any) -> Any:
        raise StoreDamaged("page 7 is damaged")

    backfill.write_rows("rows.jsonl", [row(1, number) for number in range(1000)])
    backfill.service.embed = embed  # type: ignore[method-assign]
    with pytest.raises(StoreDamaged, match="page 7"):
        await backfill.run("rows.jsonl")


async def stop_after(backfill: Backfill, calls: int, *sources: str) -> None:
    """Run and cancel, as a kill would, when the service has answered some calls."""
    answer = FakeService.embed

    async def embed(upsert: Any) -> Any:
        if len(backfill.service.calls) >= calls:
            await asyncio.Event().wait()
        return await answer(backfill.service, upsert)

    backfill.service.embed = embed  # type: ignore[method-assign]
    running = asyncio.create_task(backfill.run(*sources, progress=True))
    while len(backfill.service.calls) < calls:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    del backfill.service.embed


@pytest.mark.parametrize("kill", [False, True])
async def test_after_a_stop_it_goes_on_where_it_was(
    backfill: Backfill, monkeypatch: pytest.MonkeyPatch, kill: bool
) -> None:
    rows = [row(number // 250, number, "" if number % 100 else " ") for number in range(3000)]
    bad = [number for number in range(3000) if number % 100 == 0]
    backfill.write_rows("1.jsonl", rows[:1000])
    backfill.write_rows("2.jsonl", rows[1000:])
    if kill:
        # A kill leaves the file as it was last saved, here never.
        monkeypatch.setattr(progress_file.ProgressFile, "save", lambda *_: None)
    await stop_after(backfill, 15, "*.jsonl")
    before = len(backfill.service.stored)
    assert 0 < before < 2900
    monkeypatch.undo()
    assert await backfill.run("*.jsonl", progress=True) == 2
    good = [each for number, each in enumerate(rows) if number not in bad]
    for each in good:
        each["text"] = each["text"].strip()
    assert backfill.service.texts() == texts(good)
    assert backfill.service.encoded == len(good)
    assert (backfill.tally.rows, backfill.tally.all_quarantined) == (3000, 30)
    assert sorted((e["source"], e["row"]) for e in backfill.quarantined) == [
        ("1.jsonl" if n < 1000 else "2.jsonl", n % 1000 + 1 if n < 1000 else n - 999) for n in bad
    ]
    assert (backfill.tally.done_before > 0) is not kill
    sent = len(backfill.service.calls)
    assert await backfill.run("*.jsonl", progress=True) == 2
    assert len(backfill.service.calls) == sent
    assert (backfill.tally.done_before, backfill.tally.quarantined_before) == (2970, 30)
    # What is published counts each row once.
    assert backfill.tally.quarantined == 0
    assert "30 quarantined, 30 before" in backfill.shown


async def test_a_changed_file_is_read_anew(backfill: Backfill) -> None:
    backfill.write_rows("rows.jsonl", [row(1, 1), row(1, 2)])
    await backfill.run("rows.jsonl", progress=True)
    backfill.write_rows("rows.jsonl", [row(1, 1), row(1, 2), row(1, 3)])
    assert await backfill.run("rows.jsonl", progress=True) == 0
    assert backfill.tally.stored == 3
    for course in ("a", "b"):
        backfill.write("rows.json", json.dumps({"course": course}))
        assert await backfill.run("rows.jsonl", progress=True) == 0
        found = {segment.metadata["course"] for segment in backfill.service.stored.values()}
        assert found == {course}
    assert await backfill.run("rows.jsonl", progress=True) == 0
    assert backfill.tally.done_before == 3
    backfill.write("progress.json", "[]")
    with pytest.raises(InvalidInput, match=r"progress\.json is no progress file"):
        await backfill.run("rows.jsonl", progress=True)


async def test_a_truncated_file_does_not_stop_the_others(backfill: Backfill) -> None:
    table = pyarrow.table({"media_item_id": [1], "id": [1], "text": ["lost"]})
    pyarrow.parquet.write_table(table, backfill.folder / "a.parquet")
    whole = (backfill.folder / "a.parquet").read_bytes()
    backfill.write("a.parquet", whole[:-10])
    backfill.write("b.jsonl.gz", gzip.compress(json.dumps(row(2, 1)).encode()))
    backfill.write("c.jsonl", b"")
    assert await backfill.run("*.parquet", "*.jsonl*") == 2
    assert backfill.service.texts() == texts([row(2, 1)])
    assert list(backfill.reasons) == [("a.parquet", None)]
    assert "1 files that can't be read to their end" in backfill.shown


@pytest.mark.parametrize(
    ("extension", "needed"),
    [("zst", "the package zstandard"), ("lz4", "the package lz4"), ("XZ", "a Python with lzma")],
)
async def test_what_nothing_installed_decompresses_is_not_read_as_rows(
    backfill: Backfill, monkeypatch: pytest.MonkeyPatch, extension: str, needed: str
) -> None:
    monkeypatch.delitem(compressions, extension.lower(), raising=False)
    backfill.write(f"rows.jsonl.{extension}", b"\x28\xb5\x2f\xfd\n\x00\n")
    assert await backfill.run(f"rows.jsonl.{extension}", form="jsonl") == 2
    ((where, reason),) = backfill.reasons.items()
    assert where == (f"rows.jsonl.{extension}", None)
    assert reason == f".{extension.lower()} needs {needed}; install it where this runs"


async def test_a_dry_run_checks_all_and_sends_nothing(backfill: Backfill) -> None:
    backfill.write_rows("rows.jsonl", [row(1, 1), row(1, 2, " "), row(2, 1)])
    assert await backfill.run("rows.jsonl", dry=True, progress=True) == 2
    assert backfill.service.calls == []
    assert (backfill.tally.valid, backfill.tally.quarantined) == (2, 1)
    assert "2 are valid; nothing was sent" in backfill.shown
    assert not (backfill.folder / "progress.json").exists()
    assert await backfill.run("rows.jsonl", progress=True) == 2
    assert await backfill.run("rows.jsonl", dry=True, progress=True) == 2
    assert (backfill.tally.valid, backfill.tally.quarantined) == (2, 1)


async def test_limit_counts_rows_and_goes_on_with_progress(backfill: Backfill) -> None:
    rows = [row(1, number) for number in range(10)]
    backfill.write_rows("rows.jsonl", rows)
    await backfill.run("rows.jsonl", limit=4, progress=True)
    assert backfill.service.texts() == texts(rows[:4])
    await backfill.run("rows.jsonl", limit=4, progress=True)
    assert backfill.service.texts() == texts(rows[:8])


async def test_max_rate_spaces_the_calls(
    backfill: Backfill, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def record(seconds: float, *more: Any) -> Any:
        if seconds != run_module.TICK_S:
            pauses.append(seconds)
        return await sleep(0, *more)

    monkeypatch.setattr(sender.asyncio, "sleep", record)
    backfill.write_rows("rows.jsonl", [row(1, number) for number in range(400)])
    assert await backfill.run("rows.jsonl", max_rate=10.0) == 0
    # The nth call starts 100 segments, 10 s, after the one before.
    spaced = [round(pause, -1) for pause in pauses if pause > 1]
    assert spaced == [10, 20, 30]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("missing.jsonl", "doesn't exist"),
        ("nothing-*.jsonl", "has no files of a known format"),
        ("empty", "has no files of a known format"),
        ("notes.txt", "has an extension of no known format"),
    ],
)
def test_sources_that_are_none(backfill: Backfill, source: str, reason: str) -> None:
    (backfill.folder / "empty").mkdir()
    backfill.write("notes.txt", "x")
    with pytest.raises(InvalidInput, match=reason):
        find_files([str(backfill.folder / source)])


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"nope://bucket/x\.jsonl"):
        find_files(["nope://bucket/x.jsonl"])


async def test_any_file_system_of_fsspec(backfill: Backfill) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/talks/a.jsonl", json.dumps(row(1, 1)).encode())
    memory.pipe("/talks/b.jsonl.gz", gzip.compress(json.dumps(row(2, 1)).encode()))
    try:
        files = find_files(["memory://talks/*.jsonl*"])
        assert [file.url for file in files] == [
            "memory:///talks/a.jsonl",
            "memory:///talks/b.jsonl.gz",
        ]
        found = []
        for file in files:
            with file.open() as opened:
                found.append(json.loads(opened.stream.read()))
        assert found == [row(1, 1), row(2, 1)]
    finally:
        memory.rm("/talks", recursive=True)


@pytest.mark.parametrize("source", ["data", "data/**/*.jsonl", "data/*/*.jsonl", "data/link"])
async def test_linked_folders_are_read(backfill: Backfill, source: str) -> None:
    backfill.write_rows("elsewhere/rows.jsonl", [row(1, 1)])
    (backfill.folder / "data").mkdir()
    (backfill.folder / "data/link").symlink_to("../elsewhere")
    assert await backfill.run(source) == 0
    assert backfill.service.texts() == texts([row(1, 1)])


async def test_a_linked_file_that_changed_is_read_anew(backfill: Backfill) -> None:
    target = backfill.write_rows("elsewhere.jsonl", [row(1, 1, "one")])
    (backfill.folder / "data").mkdir()
    (backfill.folder / "data/rows.jsonl").symlink_to(target)
    for seconds, text in enumerate(("one", "two")):
        backfill.write_rows("elsewhere.jsonl", [row(1, 1, text)])
        os.utime(target, (seconds, seconds))
        assert await backfill.run("data", progress=True) == 0
        assert backfill.service.texts() == {("1", "1"): text}


async def test_links_in_circles_end_and_each_file_is_read_once(backfill: Backfill) -> None:
    backfill.write_rows("data/2024/rows.jsonl", [{"media_item_id": 1, "text": "x"}])
    backfill.write_rows("other/rows.jsonl", [row(2, 1)])
    for link, folder in {
        "data/latest": "2024",
        "data/2024/up": "..",
        "data/2024/itself": ".",
        "data/other": "../other",
        "other/back": "../data",
        "data/nowhere": "missing",
    }.items():
        (backfill.folder / link).symlink_to(folder)
    for sources in (["data"], ["data/**/*.jsonl"], ["data/latest", "data"]):
        found = find_files([str(backfill.folder / source) for source in sources])
        assert sorted(str(Path(file.url).relative_to(backfill.folder)) for file in found) == [
            "data/2024/rows.jsonl",
            "data/other/rows.jsonl",
        ]
    assert await backfill.run("data") == 0
    assert backfill.service.texts() == {("1", "rows.jsonl:1"): "x", **texts([row(2, 1)])}


async def test_files_of_one_name_in_several_archives_are_all_read(backfill: Backfill) -> None:
    for number, name in enumerate("ab"):
        with zipfile.ZipFile(backfill.folder / f"{name}.zip", "w") as archive:
            archive.writestr("in/rows.jsonl", json.dumps(row(number, 1)))
    folder = backfill.folder
    chains = [f"zip://in/*.jsonl::{folder}/a.zip", f"zip://**/*.jsonl::file://{folder}/b.zip"]
    files = find_files(chains)
    names = [f"zip://in/rows.jsonl::{folder}/{name}.zip" for name in "ab"]
    assert [file.url for file in files] == names
    assert [url_of_one(f"zip::{folder}/a.zip"), url_of_one(f"zip://in::{folder}/a.zip")] == [
        names[0]
    ] * 2
    assert files[0].version != files[1].version
    assert await backfill.run(urls=chains, progress=True) == 0
    assert backfill.service.texts() == texts([row(0, 1), row(1, 1)])


def url_of_one(source: str) -> str:
    (file,) = find_files([source])
    return file.url


async def test_a_cache_before_a_file_system_is_part_of_the_name(backfill: Backfill) -> None:
    rows = backfill.write_rows("rows.jsonl", [row(1, 1)])
    memory = fsspec.filesystem("memory")
    memory.pipe("/cached/a.jsonl", b"{}")
    try:
        assert url_of_one(f"simplecache::{rows.parent}/*.jsonl") == f"simplecache::{rows}"
        name = "simplecache::memory:///cached/a.jsonl"
        assert url_of_one("simplecache::memory://cached/*.jsonl") == name
    finally:
        memory.rm("/cached", recursive=True)
