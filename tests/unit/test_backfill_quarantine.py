"""The quarantine: no row is done that is neither stored nor in it."""

import errno
import os
from pathlib import Path

import pytest
from backfill_runs import Backfill, row, texts

from deployments.backfill import quarantine as quarantine_module
from deployments.backfill.progress_file import ProgressFile
from deployments.backfill.quarantine import Quarantine

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
