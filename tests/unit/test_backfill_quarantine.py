"""The quarantine: no row is done that is neither stored nor in it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from backfill_runs import Backfill, row, texts

from deployments.backfill import quarantine as quarantine_module
from deployments.backfill.progress_file import ProgressFile
from deployments.backfill.quarantine import Quarantine
from deployments.backfill.sources import SourceFile

ROWS = [row(1, 1), row(1, 2, " "), row(1, 3, "poison"), row(1, 4)]
FULL_DISK = Path("/dev/full")


@pytest.mark.parametrize("failing", [2, 3])
async def test_a_row_that_could_not_be_put_aside_is_not_done(
    backfill: Backfill, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    backfill.write_rows("rows.jsonl", ROWS)
    add = Quarantine.add

    def add_or_fail(self: Quarantine, source: str, number: int, *more: str) -> None:
        if number == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, source, number, *more)

    monkeypatch.setattr(Quarantine, "add", add_or_fail)
    with pytest.raises(OSError, match="No space left"):
        await backfill.run("rows.jsonl", progress=True)
    monkeypatch.undo()
    assert await backfill.run("rows.jsonl", progress=True) == 2
    assert set(backfill.reasons) == {("rows.jsonl", 2), ("rows.jsonl", 3)}
    assert backfill.service.texts() == texts([ROWS[0], ROWS[3]])


async def test_a_full_disk_ends_the_backfill_and_costs_nothing(backfill: Backfill) -> None:
    backfill.write_rows("rows.jsonl", ROWS)
    with pytest.raises(OSError, match="No space left"):
        await backfill.run("rows.jsonl", progress=True, quarantine_file=FULL_DISK)
    assert await backfill.run("rows.jsonl", progress=True) == 2
    assert set(backfill.reasons) == {("rows.jsonl", 2), ("rows.jsonl", 3)}


async def test_the_quarantine_is_durable_before_the_progress_says_done(
    backfill: Backfill, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable = 0
    fsync, save = os.fsync, ProgressFile.save
    kept = backfill.folder / "quarantine.jsonl"

    def record(descriptor: int) -> None:
        nonlocal durable
        fsync(descriptor)
        if os.fstat(descriptor).st_ino == kept.stat().st_ino:
            durable = kept.read_text().count("\n")

    def check(self: ProgressFile, files: list) -> None:
        assert durable == sum(progress.done().quarantined for progress in files) == 2
        save(self, files)

    monkeypatch.setattr(quarantine_module.os, "fsync", record)
    monkeypatch.setattr(ProgressFile, "save", check)
    backfill.write_rows("rows.jsonl", ROWS)
    assert await backfill.run("rows.jsonl", progress=True) == 2


async def test_half_a_line_that_a_kill_has_left_spoils_no_other(backfill: Backfill) -> None:
    backfill.write_rows("rows.jsonl", ROWS)
    kept = backfill.write("quarantine.jsonl", '{"source": "rows.js')
    assert await backfill.run("rows.jsonl", progress=True) == 2
    first, *others = kept.read_text().splitlines()
    assert first == '{"source": "rows.js'
    assert len(others) == 2
    assert all(line.startswith("{") and line.endswith("}") for line in others)


async def test_a_quarantine_may_be_no_regular_file(backfill: Backfill) -> None:
    backfill.write_rows("rows.jsonl", ROWS)
    nowhere = Path(os.devnull)
    assert await backfill.run("rows.jsonl", progress=True, quarantine_file=nowhere) == 2


async def test_what_changed_leaves_no_old_entries(backfill: Backfill) -> None:
    backfill.write_rows("a.jsonl", ROWS)
    backfill.write_rows("b.jsonl", [row(2, 1, " "), row(2, 2)])
    link = backfill.folder / "link.jsonl"
    link.symlink_to(backfill.folder / "quarantine.jsonl")
    assert await backfill.run("[ab].jsonl", progress=True, quarantine_file=link) == 2
    assert set(backfill.reasons) == {("a.jsonl", 2), ("a.jsonl", 3), ("b.jsonl", 1)}
    backfill.write_rows("a.jsonl", [row(1, 1), row(1, 2), row(1, 3), row(1, 4, "")])
    assert await backfill.run("[ab].jsonl", progress=True, dry=True) == 2
    assert {("a.jsonl", 2), ("a.jsonl", 3)} < set(backfill.reasons)
    assert await backfill.run("[ab].jsonl", progress=True, quarantine_file=link) == 2
    assert link.is_symlink()
    assert set(backfill.reasons) == {("b.jsonl", 1)}
    assert await backfill.run("[ab].jsonl", progress=True) == 2
    assert backfill.tally.all_quarantined == len(backfill.quarantined) == 1


async def test_a_file_that_can_be_read_again_leaves_no_old_entry(backfill: Backfill) -> None:
    backfill.write_rows("rows.jsonl", [row(1, 1), row(1, 2, " ")])

    @contextmanager
    def fail(_: SourceFile) -> Iterator[None]:
        raise OSError("the network is down")
        yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SourceFile, "open", fail)
        assert await backfill.run("rows.jsonl", progress=True) == 2
    assert list(backfill.reasons) == [("rows.jsonl", None)]
    assert await backfill.run("rows.jsonl", progress=True) == 2
    assert list(backfill.reasons) == [("rows.jsonl", 2)]
