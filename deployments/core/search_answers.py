"""Answers to searches of any kind, as JSON."""

import math
from collections.abc import Sequence

import numpy as np

from deployments.core.errors import ServiceError
from deployments.core.index_reads import IndexReads
from deployments.core.moment_results import moments_json
from deployments.core.results import Json, answer_or_failure
from deployments.core.segments import MomentSearch, Search, Vectors


def answers_json(
    reads: IndexReads,
    searches: Sequence[Search | MomentSearch],
    queries: Vectors,
    until: float = math.inf,
) -> list[Json | ServiceError]:
    """The answer to each search, or why it has none; `queries` is (len(searches), dimension).

    Raises as IndexReads.answer, which has `until`.
    """
    plain = {i: each for i, each in enumerate(searches) if isinstance(each, Search)}
    if len(plain) == len(searches):
        answers = reads.answer(list(plain.values()), queries, until)
        return [answer_or_failure(answer) for answer in answers]
    moments = {i: each for i, each in enumerate(searches) if isinstance(each, MomentSearch)}
    asked = np.ascontiguousarray(queries[list(moments)])
    found = reads.moments(list(moments.values()), asked, until)
    told: dict[int, Json | ServiceError] = {
        i: each if isinstance(each, ServiceError) else moments_json(wanted, each)
        for (i, wanted), each in zip(moments.items(), found, strict=True)
    }
    asked = np.ascontiguousarray(queries[list(plain)])
    answers = reads.answer(list(plain.values()), asked, until)
    told |= {i: answer_or_failure(answer) for i, answer in zip(plain, answers, strict=True)}
    return [told[i] for i in range(len(searches))]
