"""Clients that write, repeat, delete and search, each its own media items, until told to stop."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.crash.checks import Checks
from tests.crash.http_api import Api
from tests.crash.ledger import Ledger, Write
from tests.crash.report import Report

KINDS = ("transcript", "frame", "clip")
SEGMENTS = 10
"""Segment ids of a media item and type are 1 to this."""

OWN_TEXT_TOP_K = 25
ANCHOR = "anchor"
ANCHOR_SEGMENTS = 4
PROBE_PAUSE_S = 0.03
WATCH_PAUSE_S = 0.7


class Gate:
    """Lets threads take turns until it is closed, and tells when all turns have ended."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = True
        self._inside = 0
        self.over = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until the gate is open; it doesn't count as closed while the block runs."""
        with self._changed:
            self._changed.wait_for(lambda: self._open)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def close(self, timeout_s: float) -> bool:
        """Let nobody in; whether all have left in time."""
        with self._changed:
            self._open = False
            return self._changed.wait_for(lambda: self._inside == 0, timeout_s)

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def end(self) -> None:
        """Tell everybody to stop."""
        self.over = True
        self.open()


@dataclass(frozen=True)
class Setting:
    """What all clients share."""

    port: int
    timeout_s: float
    seed: int
    texts: Sequence[str]
    ledger: Ledger
    report: Report
    checks: Checks
    gate: Gate


class Client(threading.Thread):
    """One client: one request at a time, on media items that no other client touches."""

    def __init__(self, number: int, setting: Setting, media_items: int) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self._setting = setting
        self._ledger = setting.ledger
        self._report = setting.report
        self.api = Api(setting.port, setting.timeout_s)
        self._random = random.Random(f"client {setting.seed} {number}")
        self._revision = 0
        self._number = number
        self._unsure: int | str | None = None
        # Integers, strings that look like them, and strings with everything a path may trip over.
        self._media: list[int | str] = [
            [1000 * number + i, str(1000 * number + i), f"a/b ü?&#%2F {number}.{i}"][i % 3]
            for i in range(media_items)
        ]

    def run(self) -> None:
        gate = self._setting.gate
        while not gate.over:
            with gate.turn():
                if not gate.over:
                    self._act()

    def _act(self) -> None:
        media_item_id = self._random.choice(self._media)
        if self._unsure is not None and self._random.random() < 0.7:
            # Would a write that wasn't answered come late, it would undo the next one.
            media_item_id, self._unsure = self._unsure, None
        if self._ledger.parked(str(media_item_id)):
            return
        dice = self._random.random()
        if dice < 0.22:
            self._search(media_item_id)
        elif dice < 0.30:
            kind = None if self._random.random() < 0.4 else self._random.choice(KINDS)
            self._write(Write(media_item_id, kind, delete=True))
        elif dice < 0.40:
            self._repeat(media_item_id)
        elif dice < 0.50:
            self._change_metadata(media_item_id)
        elif dice < 0.53:
            self._abandon(self._upsert(media_item_id, replace=self._random.random() < 0.5))
        else:
            self._write(self._upsert(media_item_id, replace=dice > 0.80))

    def _upsert(self, media_item_id: int | str, *, replace: bool) -> Write:
        count = self._random.randint(0 if replace else 1, SEGMENTS)
        ids = self._random.sample(range(1, SEGMENTS + 1), count)
        return Write(
            media_item_id,
            self._random.choice(KINDS),
            tuple(self._segment(number) for number in ids),
            replace,
        )

    def _segment(self, number: int, text: str | None = None) -> dict[str, Any]:
        self._revision += 1
        start = self._random.randrange(1000)
        return {
            "id": number if self._random.random() < 0.9 else str(number),
            "text": text or self._random.choice(self._setting.texts),
            "start_time": start if self._random.random() < 0.5 else start + 0.25,
            "end_time": start + 3,
            "rev": f"{self._number}-{self._revision}",
        }

    def _stored(self, media_item_id: int | str) -> dict[str, list[dict[str, Any]]] | None:
        """The media item's segments as they would be sent, by type; None if that is uncertain."""
        states = self._ledger.possible(str(media_item_id))
        if len(states) != 1:
            return None
        found: dict[str, list[dict[str, Any]]] = {}
        for kind, _, stored in sorted(states[0]):
            segment = self._setting.checks.parsed(stored)
            segment["id"] = segment.pop("segment_id")
            segment.pop("media_item_id")
            found.setdefault(kind, []).append(segment)
        return found

    def _repeat(self, media_item_id: int | str) -> None:
        """Send again what is stored: nothing may change."""
        stored = self._stored(media_item_id)
        if stored:
            kind = self._random.choice(sorted(stored))
            self._write(Write(media_item_id, kind, tuple(stored[kind])), unchanged=True)

    def _change_metadata(self, media_item_id: int | str) -> None:
        """The same texts with other times and other metadata."""
        stored = self._stored(media_item_id)
        if stored:
            kind = self._random.choice(sorted(stored))
            segments = [
                {**self._segment(int(each["id"]), each["text"]), "tags": ["changed", {"n": 1.5}]}
                for each in self._random.sample(stored[kind], (len(stored[kind]) + 1) // 2)
            ]
            self._write(Write(media_item_id, kind, tuple(segments)))

    def _write(self, write: Write, *, unchanged: bool = False) -> None:
        before = self._ledger.possible(write.media)
        self._ledger.begin(write)
        self._report.count("writes sent")
        down = self._report.cluster_is_down
        answer = self.api.request(*request_of(write))
        self._report.answered("write", answer, down)
        if answer.ok:
            self._ledger.acknowledge(write, before)
            self._report.count("writes acknowledged")
            self._setting.checks.write_answer(write, before, answer, unchanged)
        elif answer.status == 429 or not answer.sent:
            self._ledger.refuse(write, before)
            self._report.count("writes refused")
        else:
            self._ledger.leave_unknown(write, str(answer))
            self._report.count("writes unknown")
            self._unsure = write.media_item_id
        if answer.status is None:
            time.sleep(0.1)

    def _abandon(self, write: Write) -> None:
        """Send a write and hang up: it may be applied or not, but not in part."""
        before = self._ledger.possible(write.media)
        self._ledger.begin(write)
        self._report.count("writes sent")
        if self.api.abandon(*request_of(write), self._random.uniform(0, 0.05)):
            self._ledger.leave_unknown(write, "hung up", parked=True)
            self._report.count("writes unknown")
            self._report.count("writes hung up on")
        else:
            self._ledger.refuse(write, before)

    def _search(self, media_item_id: int | str) -> None:
        """Look for a segment by its own text."""
        states = self._ledger.possible(str(media_item_id))
        if len(states) != 1 or not states[0]:
            return
        kind, _, stored = self._random.choice(sorted(states[0]))
        text = self._setting.checks.parsed(stored)["text"]
        down = self._report.cluster_is_down
        answer = self.api.search(text, kind, OWN_TEXT_TOP_K)
        self._report.answered("search", answer, down)
        if answer.ok:
            self._report.count("searches for a client's own text")
            self._setting.checks.own_text(stored, answer, OWN_TEXT_TOP_K)
        elif answer.status is None:
            time.sleep(0.1)


def request_of(write: Write) -> tuple[str, str, Any]:
    """Method, path and body."""
    if write.delete:
        path = f"/media/{quote(str(write.media_item_id), safe='')}"
        return "DELETE", path + (f"?embedding_type={write.kind}" if write.kind else ""), None
    body = {
        "media_item_id": write.media_item_id,
        "embedding_type": write.kind,
        "segments": list(write.segments),
        "replace": write.replace,
    }
    return "POST", "/embed", body


def anchor_writes() -> list[Write]:
    """A media item that is stored at the start and never changed."""
    return [
        Write(
            ANCHOR,
            kind,
            tuple(
                {
                    "id": i,
                    "text": f"anchor number {i} of the {kind}s is dropped here",
                    "rev": f"a-{i}",
                }
                for i in range(ANCHOR_SEGMENTS)
            ),
        )
        for kind in KINDS
    ]


class Prober(threading.Thread):
    """Searches for the anchor all the time, also while the service is down."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(name="prober", daemon=True)
        self._setting = setting
        self.api = Api(setting.port, setting.timeout_s)
        self._random = random.Random(f"prober {setting.seed}")
        self._last = (0.0, 0.0)

    @property
    def last_success(self) -> tuple[float, float]:
        """When the last search that was answered had begun and ended, by the monotonic clock."""
        return self._last

    def run(self) -> None:
        setting = self._setting
        while not setting.gate.over:
            (state,) = setting.ledger.possible(ANCHOR)
            kind, _, stored = self._random.choice(sorted(state))
            text = setting.checks.parsed(stored)["text"]
            down = setting.report.cluster_is_down
            answer = self._ask(text, kind)
            setting.report.answered("search", answer, down)
            if answer.ok:
                setting.report.count("searches for the anchor")
                setting.checks.own_text(stored, answer, 3, first=True)
                self._last = (answer.began, answer.began + answer.seconds)
            time.sleep(PROBE_PAUSE_S)

    def _ask(self, text: str, kind: str) -> Any:
        if self._random.random() < 0.5:
            return self.api.search(text, kind, 3)
        return self.api.request("GET", f"/search/{kind}s?query={quote(text)}&top_k=3")


class Watcher(threading.Thread):
    """Reads everything of a type while others write: no request may be seen in part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(name="watcher", daemon=True)
        self._setting = setting
        self.api = Api(setting.port, setting.timeout_s)
        self._random = random.Random(f"watcher {setting.seed}")

    def run(self) -> None:
        setting = self._setting
        while not setting.gate.over:
            kind = self._random.choice(KINDS)
            down = setting.report.cluster_is_down
            with setting.ledger.watching() as seen:
                answer = self.api.search("what is stored here", kind, setting.checks.MOST)
            setting.report.answered("search", answer, down)
            if answer.ok:
                setting.report.count("readings of a whole type while others wrote")
                setting.checks.reading(kind, answer, seen)
            time.sleep(WATCH_PAUSE_S)
