"""The vectors that searches compare by: encoded from their texts, or their callers' own."""

from collections.abc import Sequence

import numpy as np

from deployments.core.errors import InvalidInput
from deployments.core.own_vectors import dimension_of
from deployments.core.segments import ModelIdentity, Queries, Query, Vector


def needs_encoding(query: Query) -> bool:
    """Whether the query's text takes part in the comparison."""
    return len(query.embeddings) < len(query.search.embedding_types)


def vectors_of(query: Query, encoded: Vector | None, model: ModelIdentity) -> list[Vector]:
    """A vector for each type that is searched, in their order.

    `encoded` is that of the text, if it `needs_encoding`. Raises InvalidInput for a vector of the
    caller's that the index can't be compared with.
    """
    own = dict(query.embeddings)
    found = []
    for kind in query.search.embedding_types:
        embedding = own.get(kind)
        if embedding is None:
            assert encoded is not None
            found.append(encoded)
        elif dimension_of(embedding) == model.dimension:
            found.append(np.frombuffer(embedding, "<f4").astype(np.float32, copy=False))
        else:
            raise InvalidInput(
                f"the embedding has {dimension_of(embedding)} numbers, but the {kind} index has "
                f"vectors of {model.dimension} (model {model.name})"
            )
    return found


def compact(vectors: Sequence[Vector]) -> Queries:
    """The same vectors as one array, if they are of one dimension: a call has less to carry."""
    one = len({len(vector) for vector in vectors}) == 1
    return np.stack(vectors) if one else vectors
