"""What a backfill is to do."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from deployments.backfill.destination import Destination
from deployments.backfill.mapping import RowMapping
from deployments.backfill.own_files import without_own
from deployments.backfill.progress_file import ProgressFile
from deployments.backfill.sources import SourceFile
from deployments.backfill.tally import Tally
from deployments.backfill.twins import refuse_twins

Connect = Callable[[Tally], AbstractAsyncContextManager[Destination]]
"""Opens the way to the service for a backfill with these numbers."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. Without `connect`, everything is read and checked, and nothing is sent.

    With `progress`, the quarantine of earlier runs is kept.
    """

    files: Sequence[SourceFile]
    mapping: RowMapping
    connect: Connect | None
    encoding: str | None = None
    replace: bool = False
    limit: int | None = None
    max_rate: float | None = None
    quarantine: Path | None = None
    progress: ProgressFile | None = None

    def checked(self) -> "Plan":
        """The plan without files that a backfill wrote itself.

        Raises InvalidInput if it would write over a source, or store subtitles twice.
        """
        progress = self.progress.path if self.progress is not None else None
        files = without_own(self.files, self.quarantine, progress)
        refuse_twins(files, self.mapping)
        return dataclasses.replace(self, files=files)
