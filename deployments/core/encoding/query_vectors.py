"""The vectors that searches compare by: encoded from their texts, or their callers' own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from deployments.core.configured_models import is_external
from deployments.core.errors import InvalidInput
from deployments.core.own_vectors import dimension_of
from deployments.core.segments import (
    EmbeddingType,
    ModelIdentity,
    Models,
    Queries,
    Query,
    Vector,
    Vectors,
)

Encode = Callable[[str, list[str]], Awaitable[Vectors]]
"""Encodes texts as queries with the model of a name."""


async def query_vectors(
    queries: Sequence[Query], models: Models, encode: Encode
) -> list[list[Vector] | InvalidInput]:
    """For each query a vector for each type that it searches, in their order, or what is wrong.

    Each model gets all texts that it has to encode in one call, and each text once.
    """
    failures: dict[int, InvalidInput] = {}
    wanted: dict[str, dict[int, None]] = {}
    for i, query in enumerate(queries):
        try:
            for kind in _encoded_types(query, models):
                wanted.setdefault(models[kind].name, {})[i] = None
        except InvalidInput as error:
            failures[i] = error
    calls = [
        encode(name, [queries[i].text for i in positions]) for name, positions in wanted.items()
    ]
    # With one model, as most often, tasks would only cost time.
    found = await asyncio.gather(*calls) if len(calls) > 1 else [await each for each in calls]
    encoded = {
        (name, i): vector
        for (name, positions), vectors in zip(wanted.items(), found, strict=True)
        for i, vector in zip(positions, vectors, strict=True)
    }

    def vectors_of(i: int, query: Query) -> list[Vector]:
        own = dict(query.embeddings)
        return [
            np.frombuffer(own[kind], "<f4").astype(np.float32, copy=False)
            if kind in own
            else encoded[models[kind].name, i]
            for kind in query.search.embedding_types
        ]

    return [failures.get(i) or vectors_of(i, query) for i, query in enumerate(queries)]


def compact(vectors: Sequence[Vector]) -> Queries:
    """The same vectors as one array, if they are of one dimension: a call has less to carry."""
    one = len({len(vector) for vector in vectors}) == 1
    return np.stack(vectors) if one else vectors


def refuse_text(kind: EmbeddingType, model: ModelIdentity, what: str) -> InvalidInput:
    """The error for a text that no model here can encode; `what` begins its message."""
    return InvalidInput(
        f"{what} has no embedding, and the {kind} index takes vectors from elsewhere only (model "
        f"{model.name}): send `embedding`, made with that model"
    )


def _encoded_types(query: Query, models: Models) -> list[EmbeddingType]:
    """The types that the query's text is compared with. Raises InvalidInput for its vectors."""
    own = dict(query.embeddings)
    for kind, embedding in own.items():
        if dimension_of(embedding) != models[kind].dimension:
            raise InvalidInput(
                f"the embedding has {dimension_of(embedding)} numbers, but the {kind} index has "
                f"vectors of {models[kind].dimension} (model {models[kind].name})"
            )
    kinds = [kind for kind in query.search.embedding_types if kind not in own]
    for kind in kinds:
        if is_external(models[kind].name):
            raise refuse_text(kind, models[kind], "the query")
    return kinds
