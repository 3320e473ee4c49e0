"""Backfills from files to a FakeService, and what came of them."""

import json
from collections.abc import Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from deployments.backfill.mapping import RowMapping
from deployments.backfill.plan import Plan
from deployments.backfill.progress_file import ProgressFile
from deployments.backfill.report import Report
from deployments.backfill.run import run
from deployments.backfill.sources import find_files
from deployments.backfill.tally import Tally
from deployments.core.errors import StoreDamaged
from deployments.core.segments import EmbeddingType
from tests.fakes import FakeService


@dataclass
class Backfill:
    """Runs backfills in a folder; `tally`, `shown` and `quarantined` are those of the last one."""

    folder: Path
    service: FakeService = field(default_factory=FakeService)
    tally: Tally = field(default_factory=Tally)
    shown: str = ""

    async def run(
        self,
        *sources: str,
        kind: EmbeddingType = EmbeddingType.TRANSCRIPT,
        dry: bool = False,
        progress: bool = False,
        urls: Sequence[str] = (),
        quarantine_file: Path | None = None,
        progress_file: Path | None = None,
        form: str | None = None,
        **options: Any,
    ) -> int:
        """Returns the exit code. `sources` are in the folder, and `urls` anywhere."""
        given = {
            name: options.pop(name)
            for name in ("columns", "metadata", "media_item_pattern", "max_text_chars")
            if name in options
        }
        remembered = progress_file or self.folder / "progress.json"
        self.tally = Tally()
        output = StringIO()

        @asynccontextmanager
        async def connect(_):
            yield self.service

        try:
            plan = Plan(
                find_files([*(str(self.folder / source) for source in sources), *urls], form),
                RowMapping(kind, **given),
                None if dry else connect,
                quarantine=quarantine_file or self.folder / "quarantine.jsonl",
                progress=ProgressFile(remembered, [kind]) if progress or progress_file else None,
                **options,
            )
            report = Report(Console(file=output), self.tally)
            await run(plan, report)
            self.shown = "\n".join(report.summary())
        finally:
            self.shown = output.getvalue() + self.shown
        return self.tally.exit_code

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def write_rows(self, name: str, rows: list[dict[str, Any]]) -> Path:
        return self.write(name, "".join(json.dumps(row) + "\n" for row in rows))

    @property
    def quarantined(self) -> list[dict[str, Any]]:
        lines = (self.folder / "quarantine.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines if line]
        for entry in entries:
            entry["source"] = str(Path(entry["source"]).relative_to(self.folder))
        return entries

    @property
    def reasons(self) -> dict[tuple[str, int | None], str]:
        return {(each["source"], each["row"]): each["reason"] for each in self.quarantined}


def row(media_item: Any, id_: Any, text: str = "", **more: Any) -> dict[str, Any]:
    text = text or f"text {id_} of {media_item}"
    return {"media_item_id": media_item, "id": id_, "text": text, **more}


def texts(rows: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """What is stored of rows: the last one counts."""
    return {(str(each["media_item_id"]), str(each["id"])): each["text"] for each in rows}


async def fail_at(backfill: Backfill, media_item: str, *sources: str, **options: Any) -> None:
    """Run until the service is asked for a media item, when everything before it is stored."""
    answer = FakeService.embed

    async def embed(upsert: Any) -> Any:
        if str(upsert.media_item_id) == media_item:
            raise StoreDamaged("page 7 is damaged")
        return await answer(backfill.service, upsert)

    backfill.service.embed = embed  # type: ignore[method-assign]
    with suppress(StoreDamaged):
        await backfill.run(*sources, progress=True, **options)
    del backfill.service.embed
