"""Semantic textual similarity: do the vectors order pairs of sentences as people do?"""

from pathlib import Path

import numpy as np
from scipy.stats import spearmanr  # type: ignore[import-untyped]

from tests.eval.client import Client
from tests.eval.datasets import STSB, read_stsb
from tests.eval.measures import Measure, at_least

PUBLISHED_MODEL = "all-MiniLM-L6-v2"
LEAST = 0.82
"""The published weights of that model reach 0.8203."""


def evaluate(client: Client, data: Path) -> list[Measure]:
    """Spearman's rank correlation of cosines and people's scores."""
    pairs = read_stsb(data)
    first = client.embed(pairs.first, "document").astype(np.float64)
    second = client.embed(pairs.second, "document").astype(np.float64)
    correlation = float(spearmanr((first * second).sum(axis=1), pairs.scores).statistic)
    measure = Measure("sts", STSB, "Spearman", correlation)
    name = client.model["id"].removeprefix("sentence-transformers/")
    return [at_least(LEAST, measure) if name == PUBLISHED_MODEL else measure]
