"""Nothing that is stored, or that a server says, reaches a terminal as a command."""

import io
import json
import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from test_cli import run, server

from deployments.backfill.report import Report
from deployments.backfill.tally import Tally
from deployments.client import Client
from deployments.client.printable import printable
from deployments.samples import show_examples

EVIL = "a\x1b]0;title\x07\x1b[31m\x9b2J\x7f\rb\x00"
COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@given(st.text(st.characters()))
def test_only_lines_and_tabs_are_left_of_controls(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert not COMMANDS.search(shown)
    for before, after in zip(text, shown, strict=True):
        kept = before in "\n\t" or unicodedata.category(before) not in ("Cc", "Cs")
        assert after == (before if kept else "\ufffd")


METADATA = {"media_item_id": EVIL, "segment_id": EVIL, "text": EVIL}
METADATA |= {"start_time": 1, "end_time": 2}
HIT = {"similarity": 0.9, "distance": 0.1, "metadata": METADATA, "highlights": [[0, 3]]}
AROUND = {"before": [METADATA], "during": [METADATA], "after": [METADATA]}
PICTURE = HIT | {"metadata": METADATA | {"text": "", "image_path": EVIL}}
MOMENT = {"media_item_id": EVIL, "start_time": 1, "end_time": 2, "score": 1, "context": AROUND}
MOMENT |= {"evidence": {"frame": [PICTURE], "clip": [HIT]}}
STATS = {f"{kind}_vectors": 1 for kind in ("transcript", "frame", "clip", "total")}
STATS |= {"model_name": EVIL, "embedding_dimension": 8, "timestamp": EVIL, "last_write": EVIL}
STATS |= {"indices": {"frame": {"type": EVIL, "model_name": EVIL}, "clip": {"model_name": "b"}}}
STORED = {"media_item_id": 1, "embedding_type": "clip", "embeddings_created": 1, "changed": 1}
STORED |= {"removed": 0, "truncated": 0}
VECTOR = {"data": [{"index": 0, "id": EVIL, "embedding": "AACAPw=="}], "model": EVIL}
PROBLEM = {"status": 422, "code": EVIL, "detail": EVIL}
MIGRATION = {"state": "failed", "rows": 1, "rows_done": 0, "reason": EVIL, "indices": {}}
MIGRATION["indices"] = {EVIL: {"from_model": EVIL, "to_model": EVIL, "overlap_at_10": 1}}
MIGRATION["indices"][EVIL]["queries"] = 3


@pytest.mark.parametrize(
    ("arguments", "status", "answer"),
    [
        (["search", "x"], 200, {"results": [HIT | {"context": AROUND, "others": [PICTURE]}]}),
        (["search", "x", "--type", "all"], 200, {"moments": [MOMENT]}),
        (["search", "x"], 422, PROBLEM),
        (["stats"], 200, STATS),
        (["status"], 200, {"status": EVIL, "reason": EVIL, "stats": STATS}),
        (["embed", EVIL], 200, VECTOR | {"usage": {"prompt_tokens": 1}}),
        (["embed", "x", "--media-item", EVIL], 200, STORED),
        (["delete", EVIL, "--yes"], 200, STORED | {"embeddings_deleted": 1}),
        (["migrate", "--status"], 200, {"migration": MIGRATION}),
    ],
    ids=lambda each: " ".join(each[:1]) if isinstance(each, list) else "",
)
def test_commands_show_no_controls(arguments: list[str], status: int, answer: Any) -> None:
    with server(status, {}, json.dumps(answer).encode()) as (url, _):
        done = run(*arguments, "--url", url)
    assert "\ufffd]0;title" in done.output
    assert not COMMANDS.search(done.output)


def test_a_backfill_shows_no_controls() -> None:
    console = Console(file=io.StringIO())
    report = Report(console, Tally())
    report.quarantined("rows.jsonl", 7, f"its id is {EVIL}")
    report.trouble = EVIL
    report._line_at = 0.0
    report.tick()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("\ufffd]0;title") == 2
    assert not COMMANDS.search(shown)


def test_the_examples_of_the_start_show_no_controls() -> None:
    console = Console(file=io.StringIO())
    with server(200, {}, json.dumps({"results": [HIT]}).encode()) as (url, _), Client(url) as asked:
        show_examples(asked, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\ufffd]0;title" in shown
    assert not COMMANDS.search(shown)
