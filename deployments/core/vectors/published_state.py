"""The state that searches see, swapped as a whole."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from deployments.core.errors import NotReady
from deployments.core.segments import EmbeddingType
from deployments.core.vectors.collection import Snapshot


@dataclass(frozen=True, slots=True)
class State:
    """A commit of the store and the snapshots that belong to it."""

    commit_id: int
    last_sequence: int
    snapshots: Mapping[EmbeddingType, Snapshot]


class PublishedState:
    """Where the writer puts each new state, shortly after its commit became durable."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.current = State(0, 0, {})

    def publish(self, state: State) -> None:
        """Let searches see `state` from now on."""
        with self._changed:
            self.current = state
            self._changed.notify_all()

    def at(self, commit_id: int, timeout_s: float) -> State | None:
        """The state of a commit that the store has; None if a later one is published already.

        Waits if the commit was made but its state isn't published yet. Raises NotReady if that
        takes longer than `timeout_s`.
        """
        state = self.current
        if state.commit_id < commit_id:
            with self._changed:
                self._changed.wait_for(
                    lambda: self.current.commit_id >= commit_id, timeout=timeout_s
                )
                state = self.current
        if state.commit_id < commit_id:
            raise NotReady("The index is catching up with its store.")
        return state if state.commit_id == commit_id else None
