"""Backfills that replace: a media item whole, or not at all."""

import gzip
import json
from typing import Any

import pytest
from backfill_runs import Backfill, fail_at, row, texts
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deployments.backfill import replacements
from tests.fakes import FakeService


async def test_a_media_item_of_too_many_characters_is_not_replaced(
    backfill: Backfill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replacements, "MOST_CHARS", 5000)
    backfill.write_rows("old.jsonl", [row(1, "old"), row(2, "old")])
    await backfill.run("old.jsonl")
    fits = [row(1, number, "x" * 900) for number in range(5)]
    backfill.write_rows("new.jsonl", [*fits, *(row(2, number, "x" * 900) for number in range(7))])
    assert await backfill.run("new.jsonl", replace=True) == 2
    assert backfill.service.texts() == texts([*fits, row(2, "old")])
    assert list(backfill.reasons) == [("new.jsonl", number) for number in range(6, 13)]
    assert "2 has segments of more than 5,000 characters" in backfill.reasons["new.jsonl", 12]


async def test_replace_leaves_exactly_the_source(
    backfill: Backfill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replacements, "MOST_SEGMENTS", 250)
    old = [row(item, f"old {number}") for item in range(6) for number in range(3)]
    backfill.write_rows("old.jsonl", old)
    await backfill.run("old.jsonl")
    new = [row(0, 1), row(0, 2)]
    large = [row(1, number) for number in range(250)]
    too_large = [row(2, number) for number in range(251)]
    again = [row(0, 3), row(3, 1), row(3, 1, "repeated")]
    backfill.write_rows("1.jsonl", [*new, *large[:100]])
    backfill.write_rows("2.jsonl", [*large[100:], *too_large, *again])
    assert await backfill.run("[12].jsonl", replace=True) == 2
    kept = [each for each in old if each["media_item_id"] in (2, 4, 5)]
    assert backfill.service.texts() == texts([*new, *large, row(3, 1), *kept])
    assert backfill.tally.removed == 9
    calls = backfill.service.calls
    assert [len(call.segments) for call in calls if call.replace] == [2, 250, 1]
    assert all(call.replace for call in calls[6:])
    reasons = {reason.partition(";")[0] for reason in backfill.reasons.values()}
    assert reasons == {
        "media_item_id: 2 has more than 250 segments, which can't be replaced in one step",
        "media_item_id: 0 came before, with other rows between",
        "id: 1 is the id of row 403 of the media item, too",
    }
    assert len(backfill.quarantined) == 251 + 2


NOT_JSON = '{"media_item_id": 1, "id": 9, "text": "cut o'


@pytest.mark.parametrize("files", [1, 2])
async def test_after_a_stop_no_media_item_replaces_what_was_stored_of_it(
    backfill: Backfill, files: int
) -> None:
    rows = [row(1, 1), row(1, 2), row(2, 1), row(1, 3)]
    backfill.write_rows("1.jsonl", rows[:2] if files == 2 else rows)
    backfill.write_rows("2.jsonl", rows[2:] if files == 2 else [])
    await fail_at(backfill, "2", "*.jsonl", replace=True)
    assert backfill.service.texts() == texts(rows[:2])
    assert await backfill.run("*.jsonl", replace=True, progress=True) == 2
    assert backfill.service.texts() == texts(rows[:3])
    (reason,) = backfill.reasons.values()
    assert reason.startswith("media_item_id: 1 came before, with other rows between")
    calls = len(backfill.service.calls)
    assert await backfill.run("*.jsonl", replace=True, progress=True) == 2
    assert len(backfill.service.calls) == calls


async def test_what_goes_on_with_a_replaced_media_item_of_an_earlier_run_is_put_aside(
    backfill: Backfill,
) -> None:
    backfill.write_rows("1.jsonl", [row(1, 1)])
    backfill.write_rows("2.jsonl", [row(1, 2), row(1, 3), row(2, 1)])
    assert await backfill.run("1.jsonl", replace=True, progress=True) == 0
    assert await backfill.run("[12].jsonl", replace=True, progress=True) == 2
    assert backfill.service.texts() == texts([row(1, 1), row(2, 1)])
    assert list(backfill.reasons) == [("2.jsonl", 1), ("2.jsonl", 2)]
    assert all("an earlier run has done rows of 1" in each for each in backfill.reasons.values())


async def test_a_media_item_that_is_refused_is_replaced_by_none_of_its_segments(
    backfill: Backfill,
) -> None:
    old = [row(1, f"old {number}") for number in range(3)]
    backfill.write_rows("old.jsonl", old)
    await backfill.run("old.jsonl")
    new = [row(1, number, "poison" if number == 150 else "") for number in range(160)]
    backfill.write_rows("new.jsonl", new)
    assert await backfill.run("new.jsonl", replace=True) == 2
    assert backfill.service.texts() == texts(old)
    assert len(backfill.quarantined) == backfill.tally.quarantined == 160


@pytest.mark.parametrize(
    ("lines", "replaced"),
    [
        # A row of 2 that is no segment.
        ([row(1, "n"), row(2, "n"), row(2, 9, " "), row(2, "m"), row(3, "n")], "13"),
        ([row(1, "n"), row(2, 9, " "), row(2, "n"), row(3, "n")], "13"),
        ([row(1, "n"), row(2, "n"), row(2, 9, " "), row(3, "n")], "13"),
        # A row that may be anyone's, among rows of 2, and between two media items.
        ([row(1, "n"), row(2, "n"), NOT_JSON, row(2, "m"), row(3, "n")], "13"),
        ([row(1, "n"), row(2, "n"), NOT_JSON, row(3, "n")], "1"),
        ([NOT_JSON, row(1, "n"), row(2, "n"), row(3, "n")], "23"),
        ([row(1, "n"), row(2, "n"), row(3, "n"), {"id": 9, "text": "nobody's"}], "12"),
    ],
)
@pytest.mark.parametrize("stopped", [False, True])
async def test_a_media_item_without_one_of_its_rows_is_not_replaced(
    backfill: Backfill, lines: list[Any], replaced: str, stopped: bool
) -> None:
    old = [row(item, "old") for item in (1, 2, 3)]
    backfill.write_rows("old.jsonl", old)
    await backfill.run("old.jsonl")
    backfill.write(
        "new.jsonl",
        "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines),
    )
    if stopped:
        # As after a kill: what the first line was is only known from reading it again.
        await backfill.run("new.jsonl", replace=True, progress=True, limit=1)
    code = await backfill.run("new.jsonl", replace=True, progress=stopped)
    assert code == 2
    new = [each for each in lines if isinstance(each, dict) and each["id"] != 9]
    kept = [each for each in old if str(each["media_item_id"]) not in replaced]
    sent = [each for each in new if str(each["media_item_id"]) in replaced]
    assert backfill.service.texts() == texts([*kept, *sent])
    assert {number for _, number in backfill.reasons} == {
        number for number, each in enumerate(lines, 1) if each not in sent
    }
    others = [each for each in backfill.reasons.values() if "whole media item" in each]
    assert len(others) == len(new) - len(sent)
    assert all("new.jsonl can't be used" in each for each in others)


@example(drawn=[(2, "good"), (1, "good"), (1, "good")], split=2, stop=2)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["good", "good", " ", "poison"]))),
    st.integers(0, 20),
    st.integers(1, 4),
)
async def test_replace_leaves_a_whole_media_item_or_the_old_one_wherever_it_stopped(
    backfill: Backfill, drawn: list[tuple[int, str]], split: int, stop: int
) -> None:
    old = [row(item, "old") for item in (1, 2, 3, 4)]
    backfill.service = FakeService()
    (backfill.folder / "progress.json").unlink(missing_ok=True)
    backfill.write_rows("old.jsonl", old)
    await backfill.run("old.jsonl")
    rows = [row(item, number, text) for number, (item, text) in enumerate(drawn)]
    backfill.write_rows("1.jsonl", rows[:split])
    backfill.write_rows("2.jsonl", rows[split:])
    await fail_at(backfill, str(stop), "[12].jsonl", replace=True)
    await backfill.run("[12].jsonl", replace=True, progress=True)
    for media_item in (1, 2, 3, 4):
        of_it = [number for number, (item, _) in enumerate(drawn) if item == media_item]
        stored = {id_ for item, id_ in backfill.service.stored if item == str(media_item)}
        first = {str(number) for number in of_it if number - of_it[0] == of_it.index(number)}
        is_good = all(drawn[int(number)][1] == "good" for number in first)
        assert stored == (first if first and is_good else {"old"})


async def test_a_damaged_subtitle_file_costs_its_own_media_item_only(backfill: Backfill) -> None:
    cue = "00:01,0 --> 00:02,0\n{}\n\n"
    for name in "abc":
        backfill.write(f"{name}.srt", cue.format("old") + "3\n")
    backfill.write("b.srt", cue.format("old") + cue.format("gone"))
    await backfill.run("*.srt")
    backfill.write("b.srt", cue.format("new") + "0:0x --> 00:03\ngone\n")
    for name in "ac":
        backfill.write(f"{name}.srt", cue.format("new"))
    assert await backfill.run("*.srt", replace=True) == 2
    assert backfill.service.texts() == {
        ("a", "a.srt:1"): "new",
        ("b", "b.srt:1"): "old",
        ("b", "b.srt:4"): "gone",
        ("c", "c.srt:1"): "new",
    }


async def test_a_media_item_that_may_be_cut_off_is_not_replaced(backfill: Backfill) -> None:
    backfill.write_rows("old.jsonl", [row(1, number) for number in range(5)])
    await backfill.run("old.jsonl")
    content = gzip.compress("".join(json.dumps(row(1, n)) + "\n" for n in range(2)).encode())
    backfill.write("cut.jsonl.gz", content[:-8])
    assert await backfill.run("cut.jsonl.gz", replace=True) == 2
    assert len(backfill.service.stored) == 5
    assert backfill.tally.unreadable_files == 1
    assert "can't be read" in backfill.reasons["cut.jsonl.gz", None]
    # The lost rows may be those with which the next file goes on.
    backfill.write_rows("next.jsonl", [row(1, "new"), row(2, "new")])
    assert await backfill.run("cut.jsonl.gz", "next.jsonl", replace=True) == 2
    assert ("1", "new") not in backfill.service.stored
    assert ("2", "new") in backfill.service.stored
