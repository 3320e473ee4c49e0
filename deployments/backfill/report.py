"""What a person sees of a backfill: a bar in a terminal, lines in a job's log, and the summary."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from deployments.backfill.tally import Tally
from deployments.client.printable import printable

LINE_PERIOD_S = 5.0
REASONS_SHOWN = 10


@dataclass(slots=True)
class Report:
    """Prints to a console, which should be that of stderr."""

    console: Console
    tally: Tally
    fraction: float = 0.0
    """Of the files' bytes that were read."""
    calls: int = 0
    trouble: str = ""
    """Why the last call was postponed; empty when calls are answered."""
    _began: float = 0.0
    _line_at: float = 0.0
    _reasons: int = 0
    _bar: Progress | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show progress within the block, where time is counted, too."""
        self._began = time.monotonic()
        self._line_at = self._began + LINE_PERIOD_S
        if not self.console.is_terminal:
            yield
            return
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._bar.add_task("", total=1.0)
        with self._bar:
            yield
        self._bar = None

    def tick(self) -> None:
        """Bring up to date what is shown; call it often."""
        now = time.monotonic()
        self.tally.seconds = now - self._began
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=self._share(), description=self._state()
            )
        elif now >= self._line_at:
            self._line_at = now + LINE_PERIOD_S
            self._print(f"{self._share():4.0%}  {self._state()}{self._remaining()}")

    def quarantined(self, source: str, row: int | None, reason: str) -> None:
        """Show one of the first reasons."""
        self._reasons += 1
        if self._reasons <= REASONS_SHOWN:
            where = source if row is None else f"{source}:{row}"
            self._print(f"Quarantined {where}: {reason}")
        if self._reasons == REASONS_SHOWN:
            self._print("Further ones are only counted here.")

    def warn(self, source: str, warning: str) -> None:
        """Count a warning, and show it if it is one of the first."""
        self.tally.warnings += 1
        if self.tally.warnings <= REASONS_SHOWN:
            self._print(f"Warning: {source}: {warning}")
        if self.tally.warnings == REASONS_SHOWN:
            self._print("Further warnings are only counted here.")

    def summary(self) -> Iterator[str]:
        """Lines for the end."""
        tally = self.tally
        files = f"{tally.files} file{'' if tally.files == 1 else 's'}"
        yield f"{tally.rows:,} rows of {files} in {_duration(tally.seconds)}"
        if tally.valid:
            yield f"  {tally.valid:,} are valid; nothing was sent"
        if tally.done_before:
            yield f"  {tally.done_before:,} were done before"
        if tally.stored:
            yield (
                f"  {tally.stored:,} stored ({tally.changed:,} new or changed), "
                f"{tally.rows_per_s:,.0f} a second"
            )
        if tally.removed:
            yield f"  {tally.removed:,} old segments removed"
        if tally.truncated:
            yield f"  {tally.truncated:,} with a text beyond the model's limit, cut"
        before = tally.quarantined_before
        yield f"  {tally.all_quarantined:,} quarantined" + (
            f", {before:,} before" if before else ""
        )
        if tally.unreadable_files:
            yield f"  {tally.unreadable_files:,} files that can't be read to their end"
        if tally.warnings:
            yield f"  {tally.warnings:,} warning{'' if tally.warnings == 1 else 's'}"

    def _state(self) -> str:
        tally = self.tally
        parts = [f"{tally.done_before + tally.stored + tally.valid:,} rows done"]
        parts.append(f"{tally.rows_per_s:,.0f} a second")
        if tally.all_quarantined or tally.unreadable_files:
            parts.append(f"{tally.all_quarantined + tally.unreadable_files:,} failures")
        if self.calls:
            parts.append(f"{self.calls} calls in flight")
        if self.trouble:
            parts.append(f"waiting: {printable(self.trouble)}")
        return ", ".join(parts)

    def _done(self) -> int:
        tally = self.tally
        return tally.done_before + tally.stored + tally.valid + tally.all_quarantined

    def _all_rows(self) -> float:
        """How many rows there are, by the bytes of those that were read; 0 if unknown."""
        return self.tally.rows / self.fraction if self.fraction else 0.0

    def _share(self) -> float:
        every = self._all_rows()
        return min(self._done() / every, 1.0) if every else 0.0

    def _remaining(self) -> str:
        if not (self.fraction and self.tally.rows_per_s):
            return ""
        rest = max(0.0, self._all_rows() - self._done())
        return f", {_duration(rest / self.tally.rows_per_s)} left"

    def _print(self, line: str) -> None:
        self.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
