"""What the service may hold: for each media item the states that its clients' writes allow.

A client writes to its own media items, one write at a time. An acknowledged write leaves one
state for each that was possible before it. An unanswered one may or may not have been applied,
as a whole: both states are possible until the service has been looked at.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Entry = tuple[str, str, str]
"""Embedding type, segment id as a string, and the stored segment as canonical JSON."""

State = frozenset[Entry]

NOTHING: State = frozenset()
HISTORY = 12


def canonical(metadata: Mapping[str, Any]) -> str:
    """A stored segment as text; equal only if every field is, and its type."""
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True)
class Write:
    """One request that changes a media item: an upsert or, with `delete`, a deletion."""

    media_item_id: int | str
    kind: str | None
    segments: tuple[dict[str, Any], ...] = ()
    replace: bool = False
    delete: bool = False

    @property
    def media(self) -> str:
        return str(self.media_item_id)

    def applied_to(self, state: State) -> State:
        """The state after this write."""
        if self.delete:
            return frozenset(e for e in state if self.kind is not None and e[0] != self.kind)
        assert self.kind is not None
        new = {
            str(each["id"]): (self.kind, str(each["id"]), self._stored(each))
            for each in self.segments
        }
        kept = (
            entry
            for entry in state
            if entry[0] != self.kind or (not self.replace and entry[1] not in new)
        )
        return frozenset([*kept, *new.values()])

    def _stored(self, segment: Mapping[str, Any]) -> str:
        further = {name: value for name, value in segment.items() if name != "id"}
        return canonical(
            {
                "start_time": None,
                "end_time": None,
                **further,
                "media_item_id": self.media_item_id,
                "segment_id": segment["id"],
            }
        )

    def __str__(self) -> str:
        if self.delete:
            return f"delete {self.kind or 'all'}"
        ids = ",".join(f"{each['id']!r}:{each['rev']}" for each in self.segments)
        return f"{'replace' if self.replace else 'upsert'} {self.kind} {ids}"


class Ledger:
    """The possible states of all media items; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._possible: dict[str, tuple[State, ...]] = {}
        self._parked: dict[str, float] = {}
        self._watchers: list[dict[str, set[State]]] = []
        self._history: dict[str, deque[str]] = {}
        self._began = time.monotonic()

    def possible(self, media: str) -> tuple[State, ...]:
        """What the media item may be now; exactly one state if nothing is unknown."""
        with self._lock:
            return self._possible.get(media, (NOTHING,))

    def media(self) -> list[str]:
        """All media items that were ever written to."""
        with self._lock:
            return list(self._possible)

    def begin(self, write: Write) -> None:
        """Note a write before it is sent."""
        with self._lock:
            before = self.possible(write.media)
            after = tuple(dict.fromkeys(write.applied_to(state) for state in before))
            self._set(write.media, tuple(dict.fromkeys((*before, *after))))
            self._note(write, "sent")

    def acknowledge(self, write: Write, before: tuple[State, ...]) -> None:
        """The write was answered with success; `before` was possible when it was sent."""
        with self._lock:
            after = tuple(dict.fromkeys(write.applied_to(state) for state in before))
            self._set(write.media, after)
            self._note(write, "acknowledged")

    def refuse(self, write: Write, before: tuple[State, ...]) -> None:
        """The write surely wasn't applied."""
        with self._lock:
            self._set(write.media, before)
            self._note(write, "refused")

    def leave_unknown(self, write: Write, why: str, *, parked: bool = False) -> None:
        """The write may have been applied; if `parked`, it may still be applied later."""
        with self._lock:
            if parked:
                self._parked[write.media] = time.monotonic()
            self._note(write, f"unknown: {why}")

    def parked(self, media: str) -> bool:
        """Whether a write that nobody waits for may still change the media item."""
        with self._lock:
            return media in self._parked

    def settle(self, observed: Mapping[str, State], before: float) -> None:
        """Take observed states for certain, except where a write may still be under way.

        Media items parked since `before` stay as they are.
        """
        with self._lock:
            for media in self._possible:
                if self._parked.get(media, 0.0) < before:
                    self._parked.pop(media, None)
                    self._set(media, (observed.get(media, NOTHING),))

    @contextmanager
    def watching(self) -> Iterator[dict[str, set[State]]]:
        """Collects every state that is possible at some moment inside the block."""
        with self._lock:
            seen = {media: set(states) for media, states in self._possible.items()}
            self._watchers.append(seen)
        try:
            yield seen
        finally:
            with self._lock:
                self._watchers = [each for each in self._watchers if each is not seen]

    def history(self, media: str) -> list[str]:
        """The media item's last writes and what became of them."""
        with self._lock:
            return list(self._history.get(media, ()))

    def _set(self, media: str, states: tuple[State, ...]) -> None:
        self._possible[media] = states
        for seen in self._watchers:
            seen.setdefault(media, {NOTHING}).update(states)

    def _note(self, write: Write, what: str) -> None:
        notes = self._history.setdefault(write.media, deque(maxlen=HISTORY))
        notes.append(f"{time.monotonic() - self._began:9.3f} s  {write}  {what}")


def only(kind: str, states: Iterable[State]) -> set[State]:
    """What the states have of one type."""
    return {frozenset(entry for entry in state if entry[0] == kind) for state in states}


def fault_of(observed: State, allowed: Iterable[State]) -> str:
    """What is wrong with a state that isn't allowed: "lost" or "half-applied".

    Lost: something acknowledged is missing, or something is there that an acknowledged write
    replaced, or that nobody sent. Half-applied: each part is allowed, but not together.
    """
    allowed = list(allowed)
    everything = frozenset().union(*allowed)
    certain = frozenset.intersection(*allowed)
    return "lost" if observed - everything or certain - observed else "half-applied"
