"""Moments that were found, as the JSON that callers get."""

from typing import Any

import orjson

from deployments.core.api.results import Json, hit_fields, json_of, metadata_of, with_timestamp
from deployments.core.search.moment_reads import Context, FoundMoment, FoundMoments
from deployments.core.search.moment_strengths import Evidence
from deployments.core.segments import Id, MomentSearch


def moments_json(wanted: MomentSearch, found: FoundMoments) -> Json:
    """What found moments add to a MomentsResponse, as an object."""
    document: dict[str, Any] = {"moments": [_moment(wanted, each) for each in found.moments]}
    if found.exhausted:
        document["exhausted"] = True
    return json_of(document)


def moments_response_json(query: str | None, answer: Json) -> Json:
    """A MomentsResponse around what moments_json gave."""
    head = orjson.dumps({"query": query})
    return with_timestamp(b"%b,%b" % (head[:-1], answer[1:]))


def _moment(wanted: MomentSearch, found: FoundMoment) -> dict[str, Any]:
    moment = found.moment
    evidence: dict[str, list[dict[str, Any]]] = {}
    for each in moment.evidence:
        evidence.setdefault(each.embedding_type.value, []).append(_evidence(wanted, each))
    told: dict[str, Any] = {
        "media_item_id": moment.media_item_id,
        "start_time": moment.start_time,
        "end_time": moment.end_time,
        "score": moment.score,
    }
    if wanted.explain:
        told["explain"] = {"strength": moment.evidence[0].strength, "support": moment.support}
    told["evidence"] = evidence
    if found.context is not None:
        told["context"] = _context(moment.media_item_id, found.context)
    return told


def _evidence(wanted: MomentSearch, evidence: Evidence) -> dict[str, Any]:
    told = hit_fields(evidence.hit)
    if wanted.explain:
        told["strength"] = evidence.strength
    else:
        del told["explain"]
    return {**told, "metadata": metadata_of(evidence.hit.media_item_id, evidence.hit.segment)}


def _context(media_item_id: Id, context: Context) -> dict[str, Any]:
    parts = {"before": context.before, "during": context.during, "after": context.after}
    return {
        name: [metadata_of(media_item_id, segment) for segment in segments]
        for name, segments in parts.items()
    }
