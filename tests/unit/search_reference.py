"""What searches must find, in plain Python over a list of segments."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from deployments.core.search import bm25, fusion
from deployments.core.segments import Id, SearchMode, Segment, Vectors
from deployments.core.storage.analyzer import terms
from deployments.core.vectors.exact_search import cosines_of

BOUNDS = ("$gt", "$gte", "$lt", "$lte")
COLUMNS = ("media_item_id", "segment_id", "start_time", "end_time")


@dataclass(frozen=True)
class Stored:
    """A stored segment; later ones have higher numbers."""

    number: int
    media_item_id: Id
    segment: Segment
    vector: Vectors


def bm25_scores(texts: Sequence[str], query: str) -> list[float]:
    """The BM25 score of each text, by the formula."""
    documents = [terms(text) for text in texts]
    asked = terms(query)
    mean = sum(map(len, documents)) / len(documents)
    scores = [0.0] * len(texts)
    features: list[tuple[float, list[Counter[object]], list[object]]] = [
        (1.0, [Counter(each) for each in documents], list(dict.fromkeys(asked))),
        (
            bm25.PAIR_WEIGHT,
            [Counter(pairwise(each)) for each in documents],
            list(dict.fromkeys(pairwise(asked))),
        ),
    ]
    for weight, counts, wanted in features:
        for feature in wanted:
            having = sum(feature in each for each in counts)
            idf = float(np.log1p((len(texts) - having + 0.5) / (having + 0.5)))
            for i, each in enumerate(counts):
                if count := each[feature]:
                    norm = bm25.K1 * (1 - bm25.B + bm25.B * (len(documents[i]) / mean))
                    scores[i] += weight * idf * count * (bm25.K1 + 1) / (count + norm)
    return scores


def values_at(value: Any, keys: Sequence[str]) -> Iterator[Any]:
    """The values at a path, the elements of lists each by itself."""
    if isinstance(value, list):
        for each in value:
            yield from values_at(each, keys)
    elif not keys:
        yield value
    elif isinstance(value, dict) and keys[0] in value:
        yield from values_at(value[keys[0]], keys[1:])


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


def _equal(left: Any, right: Any) -> bool:
    return _kind(left) == _kind(right) and left == right


def matches(wanted: Mapping[str, Any], stored: Stored) -> bool:
    """Whether a segment matches a filter in its JSON form."""
    return all(_holds(name, value, stored) for name, value in wanted.items())


def _holds(name: str, wanted: Any, stored: Stored) -> bool:
    match name:
        case "$and":
            return all(matches(each, stored) for each in wanted)
        case "$or":
            return any(matches(each, stored) for each in wanted)
        case "$not":
            return not matches(wanted, stored)
        case "$time":
            times = [stored.segment.start_time, stored.segment.end_time]
            known = [time for time in times if time is not None]
            return (
                bool(known)
                and wanted.get("from", -math.inf) <= known[-1]
                and known[0] <= wanted.get("to", math.inf)
            )
    segment = stored.segment
    fields = {
        "media_item_id": str(stored.media_item_id),
        "segment_id": str(segment.id),
        "start_time": segment.start_time,
        "end_time": segment.end_time,
    }
    if name in COLUMNS:
        found = [fields[name]]
    else:
        found = list(values_at(segment.metadata, name.split(".")))
    is_id = name.endswith("_id")
    conditions = wanted if isinstance(wanted, dict) else {"$eq": wanted}
    bounds = {
        name: bound for name, bound in conditions.items() if name in ("$gt", "$gte", "$lt", "$lte")
    }
    others = {name: operand for name, operand in conditions.items() if name not in bounds}
    return all(_meets(name, operand, found, is_id) for name, operand in others.items()) and (
        not bounds or any(_within(value, bounds) for value in found)
    )


def _meets(operator: str, operand: Any, found: Sequence[Any], is_id: bool) -> bool:
    operands = operand if isinstance(operand, list) else [operand]
    if is_id:
        operands = [str(each) for each in operands]
    met = any(_equal(value, each) for value in found for each in operands)
    match operator:
        case "$eq" | "$in":
            return met
        case "$ne" | "$nin":
            return not met
    return any(value is not None for value in found) == operand


def _within(value: Any, bounds: Mapping[str, Any]) -> bool:
    if any(_kind(value) != _kind(bound) for bound in bounds.values()):
        return False
    tests = {
        "$gt": lambda bound: value > bound,
        "$gte": lambda bound: value >= bound,
        "$lt": lambda bound: value < bound,
        "$lte": lambda bound: value <= bound,
    }
    return all(tests[name](bound) for name, bound in bounds.items())


@dataclass(frozen=True)
class Ranked:
    """A segment that a search finds; `score` is by what its mode ranks."""

    stored: Stored
    cosine: float
    score: float

    @property
    def key(self) -> tuple[float, int]:
        return (-self.score, self.stored.number)


def ranking(
    everything: Sequence[Stored],
    text: str,
    query: Vectors,
    mode: SearchMode,
    wanted: Mapping[str, Any] | None = None,
    depth: int = fusion.DEPTH,
    most: int | None = None,
) -> list[Ranked]:
    """All that matches a filter, best first; in hybrid search only the `most` of both parts.

    Without `most` it has all rows in hybrid search too. They are measured by the spread of the
    `depth` best of each part.
    """
    worded = bm25_scores([each.segment.text for each in everything], text) if everything else []
    found = [
        Ranked(each, float(cosines_of(each.vector[None], query)[0]), score)
        for each, score in zip(everything, worded, strict=True)
        if wanted is None or matches(wanted, each)
    ]
    by_meaning = _sorted(Ranked(each.stored, each.cosine, each.cosine) for each in found)
    by_words = _sorted(each for each in found if each.score)
    if mode == SearchMode.SEMANTIC:
        return by_meaning
    if mode == SearchMode.KEYWORD:
        return by_words
    numbers = {each.stored.number for each in [*by_meaning[:depth], *by_words[:depth]]}
    candidates = [each for each in found if each.stored.number in numbers]
    cosine_mean, cosine_slope = _scale([each.cosine for each in candidates], fusion.SEMANTIC_WEIGHT)
    score_mean, score_slope = _scale(
        [each.score for each in candidates], 1 - fusion.SEMANTIC_WEIGHT
    )
    shown = {each.stored.number for each in [*by_meaning[:most], *by_words[:most]]}
    return _sorted(
        Ranked(
            each.stored,
            each.cosine,
            cosine_slope * (each.cosine - cosine_mean) + score_slope * (each.score - score_mean),
        )
        for each in found
        if each.stored.number in shown
    )


def _sorted(ranked: Any) -> list[Ranked]:
    return sorted(ranked, key=lambda each: each.key)


def _scale(values: Sequence[float], weight: float) -> tuple[float, float]:
    if len(set(values)) < 2:
        return 0.0, 0.0
    return float(np.mean(values)), float(weight / np.std(values))


def walk(
    ranked: Sequence[Ranked],
    *,
    in_groups: bool = False,
    group_size: int = 1,
    duplicate_cosine: float | None = None,
    min_similarity: float = 0.0,
    groups: int,
    passed: Callable[[list[list[Ranked]]], bool] = lambda _: True,
) -> tuple[list[list[Ranked]], bool]:
    """The groups of a ranking that a page with so many shows, and whether more would follow.

    `passed` tells of the groups so far whether the last one is on the page.
    """
    begun: list[list[Ranked]] = []
    shown, more = 0, False
    for each in ranked:
        if max(0.0, each.cosine) < min_similarity:
            continue
        media = str(each.stored.media_item_id)
        mine = [group for group in begun if in_groups and _media(group[0]) == media]
        if mine and len(mine[0]) == group_size:
            continue
        taken = [other for group in begun for other in group]
        if duplicate_cosine is not None and any(
            cosines_of(other.stored.vector[None], each.stored.vector)[0] >= duplicate_cosine
            for other in taken
        ):
            continue
        if mine:
            mine[0].append(each)
        elif shown == groups:
            more = True
        else:
            begun.append([each])
            shown += passed(begun)
    return begun[len(begun) - shown :], more


def _media(ranked: Ranked) -> str:
    return str(ranked.stored.media_item_id)
