"""Which rows each of some searches finds, from one state of the store and the vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from deployments.core.errors import DeadlineExceeded, InvalidInput, ServiceError
from deployments.core.search.arrangement import Page, arranged
from deployments.core.search.cursors import FIRST, mark_of
from deployments.core.search.deep_ranking import deep_ranking
from deployments.core.search.filtered_rows import FilteredRows
from deployments.core.search.keyword_index import KeywordIndexes, KeywordScores
from deployments.core.search.ranking import Ranked, by_both, by_keywords, by_meaning, nearest_needed
from deployments.core.segments import EmbeddingType, Queries, Search, SearchMode, Vector, Vectors
from deployments.core.shapes import Position, Shape
from deployments.core.storage.segment_writes import unit_vectors
from deployments.core.storage.store_reader import StoreReader
from deployments.core.vectors.collection import Snapshot
from deployments.core.vectors.main_part import Sequences


@dataclass(frozen=True, slots=True)
class Found:
    """The rows that a search finds, best first.

    `exhausted` says of a search that could have found more that nothing else matches; `next` is
    where its next page begins. With a `failure`, it couldn't be carried out.
    """

    rows: list[Ranked]
    exhausted: bool = False
    next: Position | None = None
    failure: ServiceError | None = None


def check_searches(
    searches: Sequence[Search],
    queries: Queries,
    snapshots: Mapping[EmbeddingType, Snapshot],
) -> list[Vector]:
    """The queries, ready to be compared. Raises InvalidInput."""
    for search in searches:
        if search.top_k < 1:
            raise InvalidInput(f"top_k is {search.top_k}, expected at least 1.")
        if not 0.0 <= search.min_similarity <= 1.0:
            raise InvalidInput(f"min_similarity is {search.min_similarity}, expected 0 to 1.")
    if len(queries) != len(searches):
        raise InvalidInput(f"{len(queries)} queries came with {len(searches)} searches.")
    checked = list(queries)
    for kind, snapshot in snapshots.items():
        here = [i for i, search in enumerate(searches) if search.embedding_type == kind]
        if here:
            unit = unit_vectors(_stacked([queries[i] for i in here]), snapshot.vectors.shape[1])
            for i, query in zip(here, unit, strict=True):
                checked[i] = query
    return checked


def _stacked(queries: Sequence[Vector]) -> Vectors:
    try:
        return np.stack(queries)
    except ValueError as error:
        raise InvalidInput(f"queries of one type have different dimensions: {error}.") from error


def find_rows(
    reader: StoreReader,
    snapshots: Mapping[EmbeddingType, Snapshot],
    searches: Sequence[Search],
    queries: Sequence[Vector],
    keywords: KeywordIndexes,
    filters: FilteredRows,
    until: float,
) -> list[Found]:
    """Carry out searches that were checked; `reader` and `snapshots` are of the same commit.

    Searches of one type with the same filter go through its vectors together. A word's weight
    doesn't depend on the filter: it is that of the word among all rows. A search fails
    whose filter or page isn't known at `until`, in seconds of `time.monotonic`, or whose cursor is
    of another model's vectors; the others don't. Raises StoreDamaged, and Overtaken.
    """
    found: list[list[Ranked]] = [[] for _ in searches]
    following: dict[int, Position] = {}
    failures: dict[int, ServiceError] = {}
    for kind, snapshot in snapshots.items():
        positions = [i for i, search in enumerate(searches) if search.embedding_type == kind]
        words = [i for i in positions if searches[i].mode != SearchMode.SEMANTIC]
        worded = {}
        if words:
            texts = [(searches[i].text, _until(searches[i])) for i in words]
            scores = keywords.search(reader, kind, snapshot, texts)
            worded = dict(zip(words, scores, strict=True))
        for wanted in dict.fromkeys(searches[i].filter for i in positions):
            here = [i for i in positions if searches[i].filter == wanted]
            rows = snapshot
            if wanted is not None:
                try:
                    rows = filters.among(reader, kind, snapshot, wanted, until)
                except DeadlineExceeded as error:
                    failures |= dict.fromkeys(here, error)
                    continue
                live = rows.live_sequences()
                worded |= {i: worded[i].among(live) for i in here if i in worded}
            plain = [i for i in here if searches[i].shape is None]
            for exact in (False, True):
                alike = [i for i in plain if searches[i].exact == exact]
                _find_alike(rows, alike, searches, queries, worded, found)
            for i in here:
                shape = searches[i].shape
                if shape is not None:
                    try:
                        page = _page(
                            reader, rows, searches[i], shape, queries[i], worded.get(i), until
                        )
                    except (DeadlineExceeded, InvalidInput) as error:
                        failures[i] = error
                        continue
                    found[i] = page.results
                    if page.next is not None:
                        following[i] = page.next
    return [
        Found(
            rows,
            (search.filter is not None or search.shape is not None) and len(rows) < search.top_k,
            following.get(i),
            failures.get(i),
        )
        for i, (search, rows) in enumerate(zip(searches, found, strict=True))
    ]


def _until(search: Search) -> int | None:
    """The last row that counts; None for all."""
    if search.shape is None or search.shape.after is None:
        return None
    return search.shape.after.as_of


def _page(
    reader: StoreReader,
    snapshot: Snapshot,
    search: Search,
    shape: Shape,
    query: Vector,
    keywords: KeywordScores | None,
    until: float,
) -> Page:
    if shape.after is not None and shape.after.model != mark_of(snapshot.fingerprint):
        raise InvalidInput(
            f"the {search.embedding_type} index was changed to another model since the page "
            f"before; send the cursor {FIRST!r} to begin again"
        )
    as_of = _until(search)
    if as_of is None:
        as_of = reader.last_sequence()
    else:
        snapshot = snapshot.until(as_of)
    if keywords is not None:
        keywords = keywords.among(snapshot.live_sequences())

    def rows_of(media_keys: Sequence[str]) -> Sequences:
        rows = [reader.rows_of_media(search.embedding_type, key).values() for key in media_keys]
        return np.sort(np.fromiter(chain.from_iterable(rows), np.int64))

    ranking = deep_ranking(search, snapshot, query, keywords)
    return arranged(search, shape, ranking, snapshot, as_of, reader.media_keys, rows_of, until)


def _find_alike(
    snapshot: Snapshot,
    positions: Sequence[int],
    searches: Sequence[Search],
    queries: Sequence[Vector],
    worded: Mapping[int, KeywordScores],
    found: list[list[Ranked]],
) -> None:
    """Put into `found` what the searches at these positions find, which see the same rows."""
    meant = [i for i in positions if searches[i].mode != SearchMode.KEYWORD]
    if meant:
        most = max(nearest_needed(searches[i]) for i in meant)
        exact = searches[meant[0]].exact
        nearest = snapshot.search(np.stack([queries[i] for i in meant]), most, exact)
        for i, (cosines, sequences) in zip(meant, nearest, strict=True):
            best = slice(nearest_needed(searches[i]))
            if i in worded:
                found[i] = by_both(searches[i], snapshot, queries[i], sequences[best], worded[i])
            else:
                found[i] = by_meaning(searches[i], cosines[best], sequences[best])
    for i in positions:
        if searches[i].mode == SearchMode.KEYWORD:
            found[i] = by_keywords(searches[i], snapshot, queries[i], worded[i])
