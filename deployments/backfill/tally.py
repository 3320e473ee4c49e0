"""The numbers of a backfill, while it runs and at its end."""

from dataclasses import dataclass

ALL_ROWS_ARE_IN = 0
COULD_NOT_BE_DONE = 1
SOME_ARE_QUARANTINED = 2


@dataclass(slots=True)
class Tally:
    """What became of files and rows.

    `stored` rows are durable; `changed` of them were not stored so before, and `truncated` have a
    text beyond the model's token limit. `valid` counts in a dry run what would be sent.
    `done_before` rows were done by an earlier run, and `quarantined_before` put aside, as the
    progress file says. `unreadable_files` couldn't be read to their end. `warnings` are of what
    may not be what was meant.
    """

    files: int = 0
    unreadable_files: int = 0
    rows: int = 0
    done_before: int = 0
    stored: int = 0
    changed: int = 0
    removed: int = 0
    truncated: int = 0
    valid: int = 0
    quarantined: int = 0
    quarantined_before: int = 0
    warnings: int = 0
    postponed_calls: int = 0
    seconds: float = 0.0
    finished: bool = False

    @property
    def rows_per_s(self) -> float:
        """Rows that this run has stored, or checked in a dry run, a second."""
        return (self.stored + self.valid) / self.seconds if self.seconds else 0.0

    @property
    def all_quarantined(self) -> int:
        """Rows of all runs that are put aside."""
        return self.quarantined + self.quarantined_before

    @property
    def exit_code(self) -> int:
        """0 only if all rows are in."""
        if not self.finished:
            return COULD_NOT_BE_DONE
        if self.all_quarantined or self.unreadable_files:
            return SOME_ARE_QUARANTINED
        return ALL_ROWS_ARE_IN
