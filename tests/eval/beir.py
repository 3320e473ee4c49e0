"""Retrieval of passages: the data sets in the layout of BEIR, by every mode of search."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.eval import metrics
from tests.eval.bm25 import rank_by_words
from tests.eval.client import Client, Type
from tests.eval.datasets import Retrieval, find_beir, read_beir
from tests.eval.measures import Measure, at_least, near_numpy
from tests.eval.ranking import rank

TYPE: Type = "transcript"
TOP_K = 100
SEMANTIC = "semantic"
KEYWORD = "keyword"
HYBRID = "hybrid"
MODES: dict[str, dict[str, Any]] = {
    SEMANTIC: {},
    KEYWORD: {"mode": KEYWORD},
    HYBRID: {"mode": HYBRID},
}
"""The fields of a search that choose each mode."""

MEASURED = "nDCG@10"
BELOW_ITS_PARTS = 0.005
"""So much worse than the better of its two parts hybrid search may be."""
LEAST_HYBRID = {"cranfield": 0.43, "tatqa_dev": 0.545}
"""Of the data sets that were there when the modes were made."""

Rankings = dict[str, list[str]]
"""Ids of documents, best first, for the id of each query."""


def evaluate(client: Client, data: Path, modes: Sequence[str]) -> list[Measure]:
    """nDCG@10, recall@100 and reciprocal rank of all data sets."""
    return [
        measure
        for folder in find_beir(data)
        for measure in _evaluate_one(client, read_beir(folder), modes)
    ]


def _evaluate_one(client: Client, retrieval: Retrieval, modes: Sequence[str]) -> list[Measure]:
    rankings: dict[str, Rankings] = {}
    with client.stored(retrieval.documents, TYPE):
        for mode in modes:
            results = client.search(list(retrieval.queries.values()), TYPE, TOP_K, **MODES[mode])
            ids = [[hit["metadata"]["segment_id"] for hit in hits] for hits in results]
            rankings[mode] = dict(zip(retrieval.queries, ids, strict=True))
    values = {mode: _values(retrieval, ranking) for mode, ranking in rankings.items()}
    plain = {
        mode: _values(retrieval, make(client, retrieval))
        for mode, make in PLAIN.items()
        if mode in modes
    }
    measures = []
    for mode, of_mode in values.items():
        for name, value in of_mode.items():
            reference = plain.get(mode, {}).get(name)
            measure = Measure("beir", retrieval.name, name, value, reference, mode=mode)
            measures.append(_with_target(measure, values))
    return measures


def _with_target(measure: Measure, values: dict[str, dict[str, float]]) -> Measure:
    if measure.mode == SEMANTIC:
        return near_numpy(measure)
    if measure.mode != HYBRID or measure.name != MEASURED:
        return measure
    parts = [values[part][MEASURED] for part in (SEMANTIC, KEYWORD) if part in values]
    least = max([LEAST_HYBRID.get(measure.data, 0.0), *(part - BELOW_ITS_PARTS for part in parts)])
    return at_least(round(least, 4), measure)


def _plain_keyword(_: Client, retrieval: Retrieval) -> Rankings:
    texts = [document.text for document in retrieval.documents]
    best = rank_by_words(list(retrieval.queries.values()), texts, TOP_K)
    return {
        query: [retrieval.documents[position].id for position in row]
        for query, row in zip(retrieval.queries, best, strict=True)
    }


def _plain_semantic(client: Client, retrieval: Retrieval) -> Rankings:
    documents = client.embed([document.text for document in retrieval.documents], "document")
    queries = client.embed(list(retrieval.queries.values()), "query")
    best = rank(queries, documents, TOP_K).positions
    return {
        query: [retrieval.documents[position].id for position in row]
        for query, row in zip(retrieval.queries, best, strict=True)
    }


PLAIN = {SEMANTIC: _plain_semantic, KEYWORD: _plain_keyword}
"""What each part is compared with."""


def _values(retrieval: Retrieval, rankings: Rankings) -> dict[str, float]:
    """Means over the queries."""
    gains = {
        query: [retrieval.relevance[query].get(document, 0) for document in ranking]
        for query, ranking in rankings.items()
    }
    relevant = {query: [gain > 0 for gain in row] for query, row in gains.items()}
    ideal = {query: list(retrieval.relevance[query].values()) for query in rankings}
    return {
        "nDCG@10": fmean(metrics.ndcg(gains[query], ideal[query], 10) for query in rankings),
        "recall@100": fmean(
            metrics.recall(relevant[query], len(ideal[query]), 100) for query in rankings
        ),
        "MRR@100": fmean(metrics.reciprocal_rank(relevant[query]) for query in rankings),
    }
