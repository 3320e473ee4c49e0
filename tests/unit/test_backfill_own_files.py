"""A backfill doesn't write over what it reads."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from backfill_runs import Backfill, row, texts

from deployments.backfill.own_files import without_own
from deployments.backfill.sources import find_files
from deployments.core.errors import InvalidInput

ROWS = [row(1, 1), row(1, 2, " ")]


def is_itself(source: Path) -> Path:
    return source


def is_a_symbolic_link(source: Path) -> Path:
    link = source.with_name("link")
    link.symlink_to(source)
    return link


def is_a_hard_link(source: Path) -> Path:
    link = source.with_name("link")
    os.link(source, link)
    return link


@pytest.mark.parametrize("name", [is_itself, is_a_symbolic_link, is_a_hard_link])
@pytest.mark.parametrize("option", ["quarantine", "progress"])
@pytest.mark.parametrize("sources", ["data/rows.jsonl", "data"])
async def test_a_source_is_neither_quarantine_nor_progress(
    backfill: Backfill, sources: str, option: str, name: Callable[[Path], Path]
) -> None:
    source = backfill.write_rows("data/rows.jsonl", ROWS)
    before = source.read_bytes()
    target = name(source)
    with pytest.raises(InvalidInput, match=f"--{option} is {target}, which is a source"):
        await backfill.run(sources, **{f"{option}_file": target})
    assert source.read_bytes() == before
    assert backfill.service.calls == []


def test_the_archive_and_the_metadata_of_a_source_are_not_written_over(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("rows.jsonl", "{}")
    in_archive = find_files([f"zip://*.jsonl::{tmp_path}/a.zip"])
    with pytest.raises(InvalidInput, match=r"a\.zip, which is a source"):
        without_own(in_archive, tmp_path / "a.zip", None)
    (tmp_path / "talk.srt").write_text("")
    talk = find_files([str(tmp_path / "talk.srt")])
    for exists in (False, True):
        if exists:
            (tmp_path / "talk.json").write_text("{}")
        with pytest.raises(InvalidInput, match=r"talk\.json, the metadata of .*talk\.srt"):
            without_own(talk, tmp_path / "talk.json", None)


@pytest.mark.parametrize("exists", [False, True])
def test_quarantine_and_progress_are_two_files(tmp_path: Path, exists: bool) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    other.symlink_to(one)
    if exists:
        one.write_text("")
    with pytest.raises(InvalidInput, match="are one file"):
        without_own([], one, other)


async def test_the_quarantine_of_an_earlier_run_is_no_source(backfill: Backfill) -> None:
    backfill.write_rows("rows.jsonl", ROWS)
    for progress in (False, False, True):
        assert await backfill.run("*.jsonl", progress=progress) == 2
        assert list(backfill.reasons) == [("rows.jsonl", 2)]
        assert backfill.tally.files == 1
    assert backfill.service.texts() == texts(ROWS[:1])
