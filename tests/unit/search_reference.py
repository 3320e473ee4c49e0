"""What searches must find, in plain Python over a list of segments."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from deployments.core import bm25, fusion
from deployments.core.analyzer import terms
from deployments.core.exact_search import cosines_of
from deployments.core.segments import Id, SearchMode, Segment, Vectors

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
            idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
            for i, each in enumerate(counts):
                if count := each[feature]:
                    norm = bm25.K1 * (1 - bm25.B + bm25.B * len(documents[i]) / mean)
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


def ranking(
    everything: Sequence[Stored],
    text: str,
    query: Vectors,
    mode: SearchMode,
    wanted: Mapping[str, Any] | None = None,
    depth: int = fusion.DEPTH,
) -> list[Ranked]:
    """All that matches a filter, best first; in hybrid search the candidates of both parts."""
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
    cosines = _standard([each.cosine for each in candidates])
    scores = _standard([each.score for each in candidates])
    weight = fusion.SEMANTIC_WEIGHT
    return _sorted(
        Ranked(each.stored, each.cosine, weight * cosine + (1 - weight) * score)
        for each, cosine, score in zip(candidates, cosines, scores, strict=True)
    )


def _sorted(ranked: Any) -> list[Ranked]:
    return sorted(ranked, key=lambda each: (-each.score, each.stored.number))


def _standard(values: Sequence[float]) -> list[float]:
    if len(set(values)) < 2:
        return [0.0] * len(values)
    array = np.array(values)
    return ((array - array.mean()) / array.std()).tolist()  # type: ignore[no-any-return]
