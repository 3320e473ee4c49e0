"""Retrieval of passages: the data sets in the layout of BEIR, by every mode of search."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.eval import metrics
from tests.eval.client import Client, Type
from tests.eval.datasets import Retrieval, find_beir, read_beir
from tests.eval.measures import Measure, near_numpy
from tests.eval.ranking import rank

TYPE: Type = "transcript"
TOP_K = 100
SEMANTIC = "semantic"
MODES: dict[str, dict[str, Any]] = {SEMANTIC: {}}
"""The fields of a search that choose each mode."""

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
    measures = []
    for mode, ranking in rankings.items():
        plain = _values(retrieval, _plain(client, retrieval)) if mode == SEMANTIC else {}
        for name, value in _values(retrieval, ranking).items():
            measure = Measure("beir", retrieval.name, name, value, plain.get(name), mode=mode)
            measures.append(near_numpy(measure) if plain else measure)
    return measures


def _plain(client: Client, retrieval: Retrieval) -> Rankings:
    documents = client.embed([document.text for document in retrieval.documents], "document")
    queries = client.embed(list(retrieval.queries.values()), "query")
    best = rank(queries, documents, TOP_K).positions
    return {
        query: [retrieval.documents[position].id for position in row]
        for query, row in zip(retrieval.queries, best, strict=True)
    }


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
