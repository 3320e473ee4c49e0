"""Does search find exactly what comparing with every stored vector finds?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.eval.client import Client, Hit, Type
from tests.eval.datasets import EARNINGS, Document, MissingData, evenly, read_earnings
from tests.eval.datasets import read_questions as questions_of_others
from tests.eval.measures import Measure, exactly
from tests.eval.ranking import Ranking, rank

TYPE: Type = "transcript"
QUERIES = 400
TOP_K = 100
SCORE_TOLERANCE = 1e-5
NEAR_TIE = 1e-6
"""A text's vector depends in its last bits on what else was encoded with it."""


@dataclass(slots=True)
class Differences:
    """How the service's results differ from the plain ranking's.

    `order` counts results in another place than their score allows, missing ones and repeated
    ones, `scores` those with a wrong cosine. Results that changed places within NEAR_TIE are in
    `near_ties` only, and those of equal texts, which the order of storing decides, in `ties`.
    """

    order: int = 0
    scores: int = 0
    near_ties: int = 0
    ties: int = 0
    largest_score_error: float = 0.0


def evaluate(client: Client, data: Path) -> list[Measure]:
    """Store segments of earnings calls and search them with other people's questions."""
    documents = read_earnings(data)
    try:
        queries = questions_of_others(data, QUERIES)
    except MissingData:
        queries = evenly([document.text for document in documents], QUERIES)
    with client.stored(documents, TYPE):
        results = client.search(queries, TYPE, TOP_K)
    document_vectors = client.embed([document.text for document in documents], "document")
    query_vectors = client.embed(queries, "query")
    differences = compare(documents, document_vectors, query_vectors, results)

    def measure(name: str, value: float) -> Measure:
        return Measure("exact", EARNINGS, name, value, mode="semantic")

    return [
        measure("stored segments", len(documents)),
        measure("queries", len(queries)),
        measure("compared results", len(queries) * min(TOP_K, len(documents))),
        exactly(0, measure("different order", differences.order)),
        exactly(0, measure(f"score off by > {SCORE_TOLERANCE:g}", differences.scores)),
        measure("largest score error", differences.largest_score_error),
        measure(f"swapped near-ties < {NEAR_TIE:g}", differences.near_ties),
        measure("swapped equal texts", differences.ties),
    ]


def compare(
    documents: Sequence[Document],
    document_vectors: npt.NDArray[np.float32],
    query_vectors: npt.NDArray[np.float32],
    results: Sequence[Sequence[Hit]],
) -> Differences:
    """Compare the results of each query with the plain ranking of the same vectors."""
    ranking = rank(query_vectors, document_vectors, TOP_K)
    found = Differences()
    positions = {(one.media_item_id, one.id): i for i, one in enumerate(documents)}
    exact_documents = document_vectors.astype(np.float64)
    for row, hits in enumerate(results):
        scores = exact_documents @ query_vectors[row].astype(np.float64)
        _compare_one(documents, positions, scores, ranking, row, hits, found)
    return found


def _compare_one(
    documents: Sequence[Document],
    positions: dict[tuple[str, str], int],
    scores: npt.NDArray[np.float64],
    ranking: Ranking,
    row: int,
    hits: Sequence[Hit],
    found: Differences,
) -> None:
    expected = ranking.positions[row]
    keys = [(hit["metadata"]["media_item_id"], hit["metadata"]["segment_id"]) for hit in hits]
    found.order += abs(len(expected) - len(hits)) + len(keys) - len(set(keys))
    for key, hit, best in zip(keys, hits, expected, strict=False):
        position = positions[key]
        error = abs(1.0 - hit["distance"] - scores[position])
        found.largest_score_error = max(found.largest_score_error, float(error))
        found.scores += bool(error > SCORE_TOLERANCE)
        if position == best:
            continue
        if documents[position].text == documents[best].text:
            found.ties += 1
        elif abs(scores[position] - scores[best]) < NEAR_TIE:
            found.near_ties += 1
        else:
            found.order += 1
