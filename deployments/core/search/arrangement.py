"""Pages, groups and the suppression of near-duplicates, on top of any ranking.

What belongs to an answer is defined by one walk down the whole ranking. A row is taken if it is
similar enough, isn't near to one that was taken, and belongs to a group that has room, or to a new
one while fewer groups were begun than the page needs. The walk here stops as soon as nothing that
follows can change the answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic

import numpy as np

from deployments.core.errors import DeadlineExceeded
from deployments.core.search.cursors import mark_of
from deployments.core.search.deep_ranking import DeepRanking
from deployments.core.search.near_duplicates import NearDuplicates
from deployments.core.search.ranking import Ranked
from deployments.core.segments import Search, SearchMode
from deployments.core.shapes import Position, Shape
from deployments.core.vectors.collection import Snapshot
from deployments.core.vectors.main_part import Sequences

MediaOf = Callable[[Sequence[int]], dict[int, str]]
"""The media items of some rows."""

RowsOf = Callable[[Sequence[str]], Sequences]
"""All rows of some media items, ascending."""

_FIRST_DEPTH = 64
_DEEPER = 4
_BLOCK = 256
_MOST_SHOWN = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """The results of a page, and where the next one begins if there is more."""

    results: list[Ranked]
    next: Position | None = None


def arranged(
    search: Search,
    shape: Shape,
    ranking: DeepRanking,
    snapshot: Snapshot,
    as_of: int,
    media_of: MediaOf,
    rows_of: RowsOf,
    until: float,
) -> Page:
    """The page of a ranking of a snapshot's rows that a search asks for.

    Raises DeadlineExceeded if that isn't known at `until`, in seconds of `time.monotonic`.
    """
    anchor = _anchor(shape, ranking, snapshot)
    walk = _Walk(search, shape, snapshot, anchor, media_of, until)
    live = snapshot.live_sequences()
    depth = _FIRST_DEPTH + 2 * (shape.offset + search.top_k)
    while True:
        ranked = ranking.best(depth)
        walk.down(ranked)
        if len(ranked) < depth or walk.is_over(ranked):
            break
        if shape.in_groups and len(np.setdiff1d(live, rows_of(walk.groups))) == 0:
            break
        depth *= _DEEPER
    if len(ranked) == depth and walk.has_room:
        # Only rows of the groups that were begun can still be taken.
        rest = snapshot.live_among(rows_of(walk.groups))
        seen = np.array([each.sequence for each in ranked], np.int64)
        later = ranking.of(np.setdiff1d(rest, seen))
        walk.down([*ranked, *(each for each in later if each.key > ranked[-1].key)])
    return walk.page(as_of)


def _anchor(shape: Shape, ranking: DeepRanking, snapshot: Snapshot) -> tuple[float, int] | None:
    """The key of the last result of the page before, as it is ranked now if it still is."""
    if shape.after is None:
        return None
    sequence = shape.after.sequence
    still_there = snapshot.live_among(np.array([sequence], np.int64))
    found = ranking.of(still_there) if len(still_there) else []
    return found[0].key if found else (-shape.after.score, sequence)


class _Walk:
    """A walk down a ranking, always from its top."""

    def __init__(
        self,
        search: Search,
        shape: Shape,
        snapshot: Snapshot,
        anchor: tuple[float, int] | None,
        media_of: MediaOf,
        until: float,
    ) -> None:
        self._search = search
        self._shape = shape
        self._snapshot = snapshot
        self._anchor = anchor
        self._media_of = media_of
        self._until = until
        self._media: dict[int, str] = {}
        self._groups: dict[str | int, list[Ranked]] = {}
        self._shown = frozenset(() if shape.after is None else shape.after.shown)
        self._near: NearDuplicates | None = None
        self._on_page: list[str | int] = []
        self.more = False

    @property
    def groups(self) -> list[str]:
        """The media items of the groups that were begun."""
        return [str(group) for group in self._groups]

    def is_over(self, ranked: Sequence[Ranked]) -> bool:
        """Whether no row after these can begin a group, and it is known if one would."""
        least = self._search.min_similarity
        if self._search.mode == SearchMode.SEMANTIC and max(0.0, ranked[-1].cosine) < least:
            return True
        return self._is_full and (self.more or self._shape.cursor_key is None)

    @property
    def _is_full(self) -> bool:
        return len(self._on_page) == self._search.top_k

    @property
    def has_room(self) -> bool:
        """Whether a group that was begun can still grow."""
        return self._shape.in_groups and any(
            len(group) < self._shape.group_size for group in self._groups.values()
        )

    def down(self, ranked: Sequence[Ranked]) -> None:
        """Walk down these rows, the first of the ranking."""
        self._groups, self._on_page, self.more = {}, [], False
        if self._shape.duplicate_cosine is not None:
            self._near = NearDuplicates(self._shape.duplicate_cosine, self._snapshot)
        if self._shape.in_groups:
            unknown = [each.sequence for each in ranked if each.sequence not in self._media]
            self._media |= self._media_of(unknown)
        for start in range(0, len(ranked), _BLOCK):
            if monotonic() > self._until:
                raise DeadlineExceeded(
                    f"the first {start} results took too long to go through; ask for pages by "
                    "cursor instead of a large offset, or for results with a higher "
                    "min_similarity, or without deduplicate"
                )
            self._visit_all(ranked[start : start + _BLOCK])

    def _visit_all(self, block: Sequence[Ranked]) -> None:
        if self._near is not None:
            self._near.look_at([each.sequence for each in block])
        for position, each in enumerate(block):
            if max(0.0, each.cosine) >= self._search.min_similarity:
                self._visit(each, position)

    def _visit(self, each: Ranked, position: int) -> None:
        shape = self._shape
        group = self._media[each.sequence] if shape.in_groups else each.sequence
        taken = self._groups.get(group)
        full = self._is_full if taken is None else len(taken) == shape.group_size
        if full and (taken is not None or self.more):
            return
        if self._near is not None and self._near.is_near(position):
            return
        if full:
            self.more = not self._was_shown(group)
        elif taken is None:
            self._groups[group] = [each]
            if self._comes_after(each) and not self._was_shown(group):
                self._on_page.append(group)
        else:
            taken.append(each)
        if not full and self._near is not None:
            self._near.take(position)

    def _comes_after(self, each: Ranked) -> bool:
        """Whether a group that begins with this row isn't of an earlier page."""
        if self._anchor is not None:
            return each.key > self._anchor
        return len(self._groups) > self._shape.offset

    def _was_shown(self, group: str | int) -> bool:
        """Whether an earlier page showed the group, by a row that may be gone since."""
        return bool(self._shown) and mark_of(str(group)) in self._shown

    def page(self, as_of: int) -> Page:
        """What the walk found."""
        results = [
            replace(best, others=tuple(others)) if self._shape.in_groups else best
            for best, *others in (self._groups[group] for group in self._on_page)
        ]
        if not self.more or not results:
            return Page(results)
        last = results[-1]
        model = mark_of(self._snapshot.fingerprint)
        return Page(results, Position(as_of, -last.key[0], last.sequence, self._marks(), model))

    def _marks(self) -> tuple[str, ...]:
        """Those of the groups on this page and on earlier ones."""
        if not self._shape.in_groups:
            return ()
        before = () if self._shape.after is None else self._shape.after.shown
        return (*before, *(mark_of(str(group)) for group in self._on_page))[-_MOST_SHOWN:]
