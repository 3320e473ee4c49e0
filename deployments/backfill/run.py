"""The backfill itself: from files to a destination."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence

from deployments.backfill.calls import Call, CallGroups, Item
from deployments.backfill.destination import Destination
from deployments.backfill.file_progress import Done, FileProgress
from deployments.backfill.named_by_position import NamedByPosition
from deployments.backfill.outcomes import Outcomes
from deployments.backfill.plan import Plan
from deployments.backfill.quarantine import Quarantine
from deployments.backfill.reading import FileReader, Read
from deployments.backfill.replacements import Replacements, Unreplaceable
from deployments.backfill.report import Report
from deployments.backfill.rows import BadRow, UnreadableSource, shown
from deployments.backfill.sender import Sender
from deployments.backfill.sources import SourceFile
from deployments.core.segments import Id

ROWS_AT_ONCE = 100
TICK_S = 0.25
SAVE_PERIOD_S = 5.0


async def run(plan: Plan, report: Report) -> None:
    """Do it; `report.tally` has the numbers, also when it raises.

    Raises what ends it early: ServiceError, OSError for the quarantine and progress files, and
    InvalidInput, before anything is written, as `Plan.checked`.
    """
    plan = plan.checked()
    go_on = plan.progress is not None
    with Quarantine(plan.quarantine, go_on=go_on) as refused:
        if plan.connect is None:
            with report.running():
                await _Run(plan, report, refused, None).all_files()
        else:
            async with plan.connect(report.tally) as destination:
                with report.running():
                    await _Run(plan, report, refused, destination).all_files()


class _Run:
    def __init__(
        self,
        plan: Plan,
        report: Report,
        refused: Quarantine,
        destination: Destination | None,
    ) -> None:
        self._plan = plan
        self._report = report
        self._tally = report.tally
        self._quarantine = refused
        self._outcomes = Outcomes(report, refused)
        self._unsaved: list[FileProgress] = []
        self._files = plan.files
        self._rows_left = sys.maxsize if plan.limit is None else plan.limit
        self._bytes = sum(file.size or 0 for file in self._files)
        self._bytes_done = 0
        self._groups = Replacements() if plan.replace else CallGroups()
        self._read_options = plan.mapping.read_options(plan.encoding)
        names = Counter(file.name for file in self._files)
        self._shared_names = {name for name, count in names.items() if count > 1}
        self._named = NamedByPosition()
        self._some_unfinished = False
        self._sender: Sender | None = None
        if destination is not None:
            self._sender = Sender(
                destination,
                plan.mapping.embedding_type,
                self._outcomes.stored,
                self._outcomes.refused,
                self._outcomes.postponed,
                plan.max_rate,
            )

    async def all_files(self) -> None:
        """Read and send everything."""
        beside = asyncio.create_task(self._report_and_save())
        try:
            done = await asyncio.to_thread(lambda: [self._before(file) for file in self._files])
            self._forget_stale(done)
            self._some_unfinished = not all(before.finished for before in done)
            for file, before in zip(self._files, done, strict=True):
                if self._rows_left:
                    await self._file(FileProgress(file, before), beside)
            for call in self._groups.rest():
                await self._send(call)
            if self._sender is not None:
                await self._sender.finish()
            self._tally.finished = True
        finally:
            beside.cancel()
            if self._sender is not None:
                await self._sender.cancel()
            self._save()
            self._tick()

    async def _report_and_save(self) -> None:
        clock = asyncio.get_running_loop().time
        save_at = clock() + SAVE_PERIOD_S
        while True:
            await asyncio.sleep(TICK_S)
            self._tick()
            if clock() >= save_at:
                began = clock()
                self._save()
                # With very many files, saving takes long, and should take a small share.
                save_at = clock() + max(SAVE_PERIOD_S, 20 * (clock() - began))

    def _tick(self) -> None:
        if self._sender is not None:
            self._report.calls = self._sender.in_flight
        self._report.tick()

    def _save(self) -> None:
        if self._plan.progress is not None and self._sender is not None:
            # What counts as done is either stored or durably put aside.
            self._quarantine.sync()
            self._plan.progress.save(self._unsaved)
            self._unsaved = [progress for progress in self._unsaved if not progress.done().finished]

    def _before(self, file: SourceFile) -> Done:
        # A dry run checks all.
        if self._plan.progress is None or self._sender is None:
            return Done()
        return self._plan.progress.done(file)

    def _forget_stale(self, done: Sequence[Done]) -> None:
        """Drop from the quarantine what will be read again, since it may come out otherwise."""
        if self._plan.progress is None or self._sender is None:
            return
        rows = {
            file.url: before.rows
            for file, before in zip(self._files, done, strict=True)
            if not before.finished
        }
        self._quarantine.forget(
            lambda source, row: source in rows and (row is None or not rows[source])
        )

    async def _file(self, progress: FileProgress, beside: asyncio.Task[None]) -> None:
        file, before = progress.file, progress.before
        self._tally.files += 1
        self._tally.rows += before.rows
        self._tally.done_before += before.rows - before.quarantined
        self._tally.quarantined_before += before.quarantined
        if not before.finished:
            self._unsaved.append(progress)
            await self._rows(progress, beside)
        elif self._some_unfinished and self._matters(file):
            await self._rows(progress, beside)
        self._bytes_done += file.size or 0
        self._show_fraction(0)

    def _matters(self, file: SourceFile) -> bool:
        """Whether what becomes of other rows depends on those that an earlier run has done.

        Of other files, too, before and after it: calls are answered in any order.
        """
        return self._plan.replace or file.name in self._shared_names

    async def _rows(self, progress: FileProgress, beside: asyncio.Task[None]) -> None:
        file, before = progress.file, progress.before
        again = before.rows if self._matters(file) else 0
        reader = FileReader(
            file,
            self._plan.mapping,
            self._read_options,
            self._named if file.name in self._shared_names else None,
            before.rows - again,
        )
        try:
            while again:
                rows = await self._take(reader, file, again)
                again = again - len(rows) if rows else 0
                for row in rows:
                    await self._pass_over(file, row)
            while self._rows_left and not before.finished:
                rows = await self._take(reader, file, self._rows_left)
                if not rows:
                    progress.ended = True
                    break
                self._rows_left -= len(rows)
                for row in rows:
                    await self._row(progress, row)
                if beside.done():
                    # It ends only by an error.
                    beside.result()
        except UnreadableSource as error:
            self._outcomes.unreadable(file, str(error))
            await self._miss(reader.media_item_id, f"{file.url} can't be read to its end")
        reader.close()
        self._warn(file, reader)

    async def _take(self, reader: FileReader, file: SourceFile, most: int) -> list[Read]:
        try:
            return await asyncio.to_thread(reader.take, min(ROWS_AT_ONCE, most))
        finally:
            self._show_fraction(reader.bytes_read())
            self._warn(file, reader)

    def _warn(self, file: SourceFile, reader: FileReader) -> None:
        for warning in reader.warnings:
            self._report.warn(file.url, warning)
        reader.warnings.clear()

    async def _pass_over(self, file: SourceFile, read: Read) -> None:
        if isinstance(read, BadRow):
            await self._miss_row(file, read)
        elif isinstance(self._groups, Replacements):
            for call in self._groups.pass_over(read[1]):
                await self._send(call)

    async def _miss_row(self, file: SourceFile, row: BadRow) -> None:
        await self._miss(row.media_item_id, f"row {row.number} of {file.url} can't be used")

    async def _miss(self, media_item_id: Id | None, what: str) -> None:
        if isinstance(self._groups, Replacements):
            for call in self._groups.miss(media_item_id, what):
                await self._send(call)

    async def _row(self, progress: FileProgress, read: Read) -> None:
        index = progress.begin()
        self._tally.rows += 1
        if isinstance(read, BadRow):
            self._outcomes.bad_row(progress, index, read)
            await self._miss_row(progress.file, read)
            return
        row, media_item_id, segment = read
        chars = len(segment.text) + len(json.dumps(segment.metadata, ensure_ascii=False))
        chars += len(segment.embedding or b"")
        item = Item(media_item_id, segment, progress, index, row.number, shown(row.raw), chars)
        for call in self._groups.add(item):
            await self._send(call)

    async def _send(self, call: Call | Unreplaceable) -> None:
        if isinstance(call, Unreplaceable):
            self._outcomes.unusable(call.items, call.reason)
        elif self._sender is not None:
            await self._sender.send(call)
        else:
            self._outcomes.valid(call)

    def _show_fraction(self, of_this_file: int) -> None:
        if self._bytes:
            self._report.fraction = (self._bytes_done + of_this_file) / self._bytes
