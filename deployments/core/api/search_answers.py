"""Answers to searches of any kind, as JSON."""

import math
from collections.abc import Sequence
from itertools import chain, islice

from deployments.core.api.moment_results import moments_json
from deployments.core.api.results import Json, answer_or_failure
from deployments.core.errors import ServiceError
from deployments.core.index.index_reads import IndexReads
from deployments.core.segments import MomentSearch, Queries, Search


def answers_json(
    reads: IndexReads,
    searches: Sequence[Search | MomentSearch],
    queries: Queries,
    until: float = math.inf,
) -> list[Json | ServiceError]:
    """The answer to each search, or why it has none.

    `queries` has for each search a vector for each of its `embedding_types`. Raises as
    IndexReads.answer, which has `until`.
    """
    plain = {i: each for i, each in enumerate(searches) if isinstance(each, Search)}
    if len(plain) == len(searches):
        answers = reads.answer(list(plain.values()), queries, until)
        return [answer_or_failure(answer) for answer in answers]
    rest = iter(queries)
    vectors = [list(islice(rest, len(each.embedding_types))) for each in searches]
    moments = {i: each for i, each in enumerate(searches) if isinstance(each, MomentSearch)}
    asked = list(chain.from_iterable(vectors[i] for i in moments))
    found = reads.moments(list(moments.values()), asked, until)
    told: dict[int, Json | ServiceError] = {
        i: each if isinstance(each, ServiceError) else moments_json(wanted, each)
        for (i, wanted), each in zip(moments.items(), found, strict=True)
    }
    asked = list(chain.from_iterable(vectors[i] for i in plain))
    answers = reads.answer(list(plain.values()), asked, until)
    told |= {i: answer_or_failure(answer) for i, answer in zip(plain, answers, strict=True)}
    return [told[i] for i in range(len(searches))]
