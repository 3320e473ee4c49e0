"""Vectors to measure indices with: real ones, and any number that are spread like them."""

import json
from pathlib import Path

import numpy as np

from deployments.core.segments import Vectors

_NEIGHBOURS = 16
_AT_ONCE = 50_000
_QUERY_SHARE = 0.1


def plain(rows: int, dimension: int, seed: int = 0) -> Vectors:
    """Independent vectors, (rows, dimension): the hardest case, since none has neighbours."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            unit(rng.standard_normal((min(_AT_ONCE, rows - start), dimension), np.float32))
            for start in range(0, rows, _AT_ONCE)
        ]
    )


def embedded(folder: Path, most: int) -> tuple[Vectors, Vectors]:
    """Vectors of the texts in a folder's *.jsonl files, and of other texts of it as queries.

    Files called queries.jsonl hold the queries; without one, a tenth of the texts do.
    """
    from deployments.core.encoding.text_encoder import TextKind, load_text_encoder

    texts: list[str] = []
    questions: list[str] = []
    for file in sorted(folder.rglob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            text = json.loads(line).get("text")
            if isinstance(text, str) and text.strip():
                (questions if file.name == "queries.jsonl" else texts).append(text)
    texts = list(dict.fromkeys(texts))
    if not questions:
        few = max(1, int(len(texts) * _QUERY_SHARE))
        texts, questions = texts[few:], texts[:few]
    encoder = load_text_encoder("all-MiniLM-L6-v2")

    def encode(some: list[str], kind: TextKind) -> Vectors:
        tokens = encoder.tokenize(some, kind)
        order = sorted(range(len(some)), key=lambda i: len(tokens[i].ids))
        vectors = np.empty((len(some), encoder.identity.dimension), np.float32)
        for start in range(0, len(order), 32):
            batch = order[start : start + 32]
            vectors[batch] = encoder.encode([tokens[i] for i in batch])
        return vectors

    return encode(texts[:most], "document"), encode(questions[: most // 10 + 1], "query")


def spread_like(real: Vectors, rows: int, seed: int = 0) -> Vectors:
    """`rows` vectors: the real ones first, then new ones between and around them.

    A new one lies between a real vector and one of its nearest, moved by the difference of
    two other neighbours, so that it varies in the directions in which real ones do.
    """
    rng = np.random.default_rng(seed)
    near = _nearest(real)
    parts = [real[:rows]]
    for start in range(len(real), rows, _AT_ONCE):
        count = min(_AT_ONCE, rows - start)
        one, other = rng.integers(0, len(real), (2, count))
        towards = real[near[one, rng.integers(0, _NEIGHBOURS, count)]] - real[one]
        apart = real[near[other, rng.integers(0, _NEIGHBOURS, count)]] - real[other]
        share = rng.random((count, 1), np.float32)
        parts.append(unit(real[one] + share * towards + 0.5 * apart))
    return np.concatenate(parts)


def unit(vectors: np.ndarray) -> Vectors:
    """The rows, each divided by its length in float64."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return (vectors / lengths[:, None]).astype(np.float32)


def _nearest(real: Vectors) -> np.ndarray:
    found = []
    for start in range(0, len(real), 1024):
        scores = real[start : start + 1024] @ real.T
        best = np.argpartition(-scores, _NEIGHBOURS, axis=1)[:, : _NEIGHBOURS + 1]
        found.append(best[:, :_NEIGHBOURS])
    return np.concatenate(found)
