"""What a run has seen: counts, times, and everything that broke a promise."""

import json
import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.http_api import Answer

MOST_SHOWN = 10


@dataclass
class Recovery:
    """A kill and how long the service couldn't search after it."""

    number: int
    kind: str
    seconds: float


@dataclass
class Report:
    """Filled by many threads."""

    seed: int
    limit_s: float
    """No request may take longer."""
    kills: Counter[str] = field(default_factory=Counter)
    recoveries: list[Recovery] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)
    longest_s: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    cluster_is_down: bool = False
    """Whether every process was killed and the service isn't ready again yet."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str, by: int = 1) -> None:
        with self._lock:
            self.counts[what] += by

    def violate(self, kind: str, detail: str, **more: Any) -> None:
        """Note a broken promise; the first of a kind are printed at once."""
        with self._lock:
            seen = sum(1 for each in self.violations if each["kind"] == kind)
            at_s = round(time.monotonic() - self.began, 3)
            kills = sum(self.kills.values())
            found = {"kind": kind, "detail": detail, "at_s": at_s, "kills_before": kills, **more}
            self.violations.append(found)
        if seen < MOST_SHOWN:
            print(f"VIOLATION {json.dumps(found, indent=1, default=str)}", flush=True)

    def answered(self, what: str, answer: Answer, cluster_was_down: bool) -> None:
        """Check the form of an answer: its status, Retry-After, and how long it took.

        While the whole cluster is down anything but a wrong answer is fair.
        """
        down = cluster_was_down or self.cluster_is_down
        status = answer.error.split(":")[0] if answer.status is None else str(answer.status)
        with self._lock:
            self.statuses[f"{what} {status}{' (cluster down)' if down else ''}"] += 1
            if not down:
                self.longest_s[what] = max(self.longest_s.get(what, 0.0), answer.seconds)
        if down:
            return
        if answer.seconds > self.limit_s:
            self.violate("hang", f"{what}: {answer}")
        if answer.ok:
            return
        if answer.status is None:
            self.violate("no answer", f"{what}: {answer}")
        elif answer.status not in (429, 503, 507):
            self.violate("status", f"{what}: {answer}")
        elif answer.retry_after is None:
            self.violate("no Retry-After", f"{what}: {answer}")

    def violations_of(self, kind: str) -> int:
        return sum(1 for each in self.violations if each["kind"] == kind)

    def table(self) -> str:
        """The summary for people."""
        lines = [f"seed {self.seed}, {time.monotonic() - self.began:.0f} s", "", "Kills"]
        lines += [f"  {count:5d}  {kind}" for kind, count in sorted(self.kills.items())]
        lines += [f"  {sum(self.kills.values()):5d}  in all", "", "Requests"]
        for what in sorted(self.counts):
            lines.append(f"  {self.counts[what]:7,d}  {what}")
        lines += ["", "Answers"]
        lines += [f"  {count:7,d}  {status}" for status, count in sorted(self.statuses.items())]
        lines += ["", "Longest answer"]
        lines += [f"  {seconds:7.2f} s  {what}" for what, seconds in sorted(self.longest_s.items())]
        lines += ["", "Recovery, from the death to the first search answered"]
        for kind in sorted({each.kind for each in self.recoveries}):
            times = [each.seconds for each in self.recoveries if each.kind == kind]
            lines.append(
                f"  median {statistics.median(times):6.2f} s  max {max(times):6.2f} s  "
                f"n={len(times):3d}  {kind}"
            )
        lines += ["", "Broken promises (each must be 0)"]
        for kind, meaning in PROMISES.items():
            lines.append(f"  {self.violations_of(kind):5d}  {kind}: {meaning}")
        return "\n".join(lines)

    def write_json(self, path: Path) -> None:
        document = {
            "seed": self.seed,
            "seconds": round(time.monotonic() - self.began, 1),
            "kills": dict(self.kills),
            "counts": dict(self.counts),
            "answers": dict(self.statuses),
            "longest_s": self.longest_s,
            "recoveries": [vars(each) for each in self.recoveries],
            "violations": self.violations,
        }
        path.write_text(json.dumps(document, indent=1, default=str) + "\n")


PROMISES = {
    "lost": "an acknowledged write is missing, or undone",
    "half-applied": "only a part of a request is stored",
    "duplicate": "a segment is stored twice",
    "wrong answer": "a search missed what is stored, or had a wrong text, score or order",
    "wrong count": "an answer or /stats counted wrong",
    "status": "an answer other than 200, 429, 503 and 507",
    "no Retry-After": "a 429, 503 or 507 that doesn't say when to try again",
    "no answer": "the connection ended without an answer although only the Index had died",
    "hang": "an answer took longer than the time-out and 5 s",
    "store": "the store or a checkpoint has a flaw",
    "no recovery": "the service didn't come back",
    "survivor": "a process outlived its cluster",
    "unreached": "a fault point was never reached: the test is blind there",
}
