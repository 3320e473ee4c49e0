"""What became of rows: counted, shown, put aside, and only then done."""

from collections.abc import Iterable

from deployments.backfill.calls import Call, Item
from deployments.backfill.file_progress import FileProgress
from deployments.backfill.quarantine import Quarantine
from deployments.backfill.report import Report
from deployments.backfill.rows import BadRow, shown
from deployments.backfill.sources import SourceFile
from deployments.core.segments import UpsertResult


class Outcomes:
    """Takes down how rows ended. A row that can't be written to the quarantine isn't done.

    What puts rows aside raises OSError.
    """

    def __init__(self, report: Report, quarantine: Quarantine) -> None:
        self._report = report
        self._tally = report.tally
        self._quarantine = quarantine

    def stored(self, call: Call, result: UpsertResult) -> None:
        """The service has stored a call."""
        _finish(call.items)
        self._tally.stored += len(call.items)
        self._tally.changed += result.changed
        self._tally.removed += result.removed
        self._tally.truncated += result.truncated
        self._report.trouble = ""

    def valid(self, call: Call) -> None:
        """A dry run would send a call."""
        _finish(call.items)
        self._tally.valid += len(call.items)

    def refused(self, call: Call, reason: str) -> None:
        """The service won't store a call."""
        self.unusable(call.items, f"refused by the service: {reason}")

    def postponed(self, reason: str) -> None:
        """The service can't take a call now."""
        self._tally.postponed_calls += 1
        self._report.trouble = reason

    def unusable(self, items: Iterable[Item], reason: str) -> None:
        """Segments can't be sent or stored."""
        for item in items:
            self._put_aside(item.progress, item.index, item.number, reason, item.raw)

    def bad_row(self, progress: FileProgress, index: int, row: BadRow) -> None:
        """The `index`th row of a file is no segment."""
        self._put_aside(progress, index, row.number, row.reason, shown(row.raw))

    def unreadable(self, file: SourceFile, reason: str) -> None:
        """A file can't be read, or not to its end."""
        self._tally.unreadable_files += 1
        self._quarantine.add(file.url, None, reason)
        self._report.quarantined(file.url, None, reason)

    def _put_aside(
        self, progress: FileProgress, index: int, number: int, reason: str, raw: str
    ) -> None:
        self._quarantine.add(progress.file.url, number, reason, raw)
        progress.finish(index, quarantined=True)
        self._tally.quarantined += 1
        self._report.quarantined(progress.file.url, number, reason)


def _finish(items: Iterable[Item]) -> None:
    for item in items:
        item.progress.finish(item.index)
