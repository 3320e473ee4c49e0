"""What is known to be wrong with the store of a running index."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

from deployments.core.errors import StoreDamaged
from deployments.core.storage_errors import RESTORE

logger = logging.getLogger(__name__)

_SHOWN = 3

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Damage:
    """Damage of the store, in sentences for people, and how many rows are known to be damaged."""

    reason: str
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was found in a damaged store: rows that are provably what was stored, and the rest."""

    intact_rows: int
    lost_rows: int
    lost_are_counted: bool
    """Whether `lost_rows` are all; if not, the damage hides how many there were."""
    missing_commits: int
    """Writes that were answered and aren't in the store: its write-ahead log is missing or cut."""
    media_items: tuple[str, ...]
    """Media items with lost rows, as far as they are known; the first 20."""

    @property
    def summary(self) -> str:
        """One or a few sentences."""
        counted = "" if self.lost_are_counted else "at least "
        parts = [f"{self.intact_rows} rows are intact, {counted}{self.lost_rows} are lost."]
        if self.media_items:
            parts.append(f"Rows are lost of media items {', '.join(self.media_items)}.")
        if self.missing_commits:
            parts.append(
                f"The last {self.missing_commits} writes are missing: this is an older state, "
                "in which deleted rows may be back."
            )
        return " ".join(parts)


class DamageRecord:
    """The damage that was found since the start; safe in any thread. It stays until a restart."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.current: Damage | None = None

    def note(self, error: StoreDamaged) -> None:
        """Note what a read or a write met. What is known already is kept."""
        with self._lock:
            if self.current is None:
                self._set(Damage(error.detail))

    def found(self, problems: Sequence[str], rows: int) -> None:
        """Note what a check of the whole store found, which says more than a single read."""
        with self._lock:
            shown = list(problems[:_SHOWN])
            if len(problems) > _SHOWN:
                shown.append(f"And {len(problems) - _SHOWN} more.")
            self._set(Damage(" ".join([*shown, RESTORE]), rows))

    def _set(self, damage: Damage) -> None:
        self.current = damage
        logger.error("The store is damaged, writes are refused: %s", damage.reason)

    def refuse_writes(self) -> None:
        """Raise StoreDamaged if anything is known to be damaged."""
        damage = self.current
        if damage is not None:
            raise StoreDamaged(f"Writes are refused, since the store is damaged: {damage.reason}")


class HasDamage(Protocol):
    """What keeps a DamageRecord."""

    damage: DamageRecord


S = TypeVar("S", bound=HasDamage)


def noting_damage(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let a method note each StoreDamaged that it raises."""

    @wraps(method)
    def noting(owner: S, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(owner, *args, **kwargs)
        except StoreDamaged as error:
            owner.damage.note(error)
            raise

    return cast("Callable[Concatenate[S, P], R]", noting)
