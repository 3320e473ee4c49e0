"""Columns that --map names: where none or not every row has them."""

import pytest
from backfill_runs import Backfill, row

from deployments.backfill.report import REASONS_SHOWN


async def test_a_row_without_the_mapped_column_does_not_lose_its_own_field(
    backfill: Backfill,
) -> None:
    rows = [row(1, 1, start_time=3), row(1, 2, begin=4), row(1, 3, begin=5, start_time=6)]
    backfill.write_rows("rows.jsonl", [*rows, row(1, 4), row(1, 5, begin=None, start_time=7)])
    assert await backfill.run("rows.jsonl", columns={"start_time": "begin"}) == 2
    times = {id_: each.start_time for (_, id_), each in backfill.service.stored.items()}
    assert times == {"2": 4, "3": 5, "4": None, "5": None}
    assert backfill.reasons == {
        ("rows.jsonl", 1): "start_time: the row has no 'begin', which --map names, "
        "but a start_time of its own"
    }
    assert backfill.tally.warnings == 0


async def test_subtitles_do_not_lose_their_times_to_the_columns_of_other_files(
    backfill: Backfill,
) -> None:
    backfill.write("talk.srt", "00:01,0 --> 00:02,0\nx\n")
    assert await backfill.run("talk.srt", columns={"start_time": "begin"}) == 2
    assert backfill.service.stored == {}


@pytest.mark.parametrize("options", [{}, {"limit": 1}, {"dry": True}])
async def test_a_mapped_column_that_no_row_has_is_told(backfill: Backfill, options: dict) -> None:
    backfill.write_rows("rows.jsonl", [row(1, 1, begin=3, x=1), row(1, 2, begin=4)])
    columns = {"start_time": "begn", "end_time": "end", "speaker": "x"}
    assert await backfill.run("rows.jsonl", columns=columns, **options) == 0
    warning = "--map start_time=begn and end_time=end: no row has such a column"
    assert f"Warning: {backfill.folder}/rows.jsonl: {warning}" in backfill.shown
    assert "  1 warning" in backfill.shown


async def test_what_a_sidecar_or_the_path_says_needs_no_column(backfill: Backfill) -> None:
    backfill.write("a.srt", "00:01,0 --> 00:02,0\nx\n")
    backfill.write_rows("b.jsonl", [{"id": 1, "text": "x"}])
    backfill.write("b.json", '{"media_item_id": "b"}')
    backfill.write("c.jsonl", "not JSON\n")
    await backfill.run("[abc].*", columns={"media_item_id": "video"})
    assert {item for item, _ in backfill.service.stored} == {"a", "b"}
    assert backfill.tally.warnings == 0


async def test_a_field_may_be_another_ones_column(backfill: Backfill) -> None:
    backfill.write_rows("rows.jsonl", [{"media_item_id": 1, "id": 1, "text": 5, "caption": "x"}])
    columns = {"text": "caption", "start_time": "text"}
    assert await backfill.run("rows.jsonl", columns=columns) == 0
    (stored,) = backfill.service.stored.values()
    assert (stored.text, stored.start_time) == ("x", 5)


async def test_only_the_first_warnings_are_shown(backfill: Backfill) -> None:
    for number in range(REASONS_SHOWN + 5):
        backfill.write_rows(f"{number}.jsonl", [row(number, 1)])
    assert await backfill.run("*.jsonl", columns={"start_time": "begn"}) == 0
    assert backfill.shown.count("Warning: ") == REASONS_SHOWN
    assert backfill.shown.count("Further warnings are only counted here.") == 1
    assert backfill.tally.warnings == REASONS_SHOWN + 5
