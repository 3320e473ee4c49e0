"""What was found, as the JSON that callers get.

It is written once, where the texts are read, and passed on as bytes: building, pickling and
validating thousands of objects on each of three hops costs more than finding them.
"""

import json
from collections.abc import Sequence
from typing import Any

import orjson

from deployments.core.errors import ServiceError
from deployments.core.search.answers import Answer
from deployments.core.segments import (
    EmbeddingType,
    Explanation,
    Hit,
    Id,
    Part,
    Segment,
    SegmentName,
)
from deployments.core.timestamps import now

Json = bytes
"""A whole JSON value, UTF-8."""


def answer_or_failure(answer: Answer) -> Json | ServiceError:
    """What answer_json gives, or why the search couldn't be carried out."""
    return answer_json(answer) if answer.failure is None else answer.failure


def answer_json(answer: Answer) -> Json:
    """What an answer adds to a SearchResponse, as an object."""
    document: dict[str, Any] = {
        "results": [_result(position, hit) for position, hit in enumerate(answer.hits)]
    }
    if answer.exhausted:
        document["exhausted"] = True
    if answer.paged:
        document["next_cursor"] = answer.next_cursor
    return json_of(document)


def json_of(document: dict[str, Any]) -> Json:
    """A document with metadata as JSON."""
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        # Metadata that didn't come through the API may have integers of more than 64 bits.
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def with_timestamp(document: Json) -> Json:
    """An object that isn't empty, with the present time at its end."""
    return b'%b,"timestamp":"%b"}' % (document[:-1], now().encode())


def search_response_json(query: str | None, embedding_type: EmbeddingType, answer: Json) -> Json:
    """A SearchResponse around what answer_json gave."""
    head = orjson.dumps({"query": query, "embedding_type": embedding_type})
    return with_timestamp(b"%b,%b" % (head[:-1], answer[1:]))


def similar_response_json(name: SegmentName, answer: Json) -> Json:
    """A SimilarResponse around what answer_json gave."""
    head = orjson.dumps(
        {
            "media_item_id": name.media_item_id,
            "segment_id": name.segment_id,
            "embedding_type": name.embedding_type,
        }
    )
    return with_timestamp(b"%b,%b" % (head[:-1], answer[1:]))


def batch_response_json(responses: Sequence[Json]) -> Json:
    """A BatchResponse of SearchResponses."""
    return with_timestamp(b'{"responses":[%b]}' % b",".join(responses))


def _result(position: int, hit: Hit) -> dict[str, Any]:
    result = {"index": position, **hit_fields(hit)}
    if hit.before is not None and hit.after is not None:
        result["context"] = {
            "before": [metadata_of(hit.media_item_id, each) for each in hit.before],
            "after": [metadata_of(hit.media_item_id, each) for each in hit.after],
        }
    if hit.others is not None:
        result["others"] = [_result(place, other) for place, other in enumerate(hit.others)]
    return {**result, "metadata": metadata_of(hit.media_item_id, hit.segment)}


def hit_fields(hit: Hit) -> dict[str, Any]:
    """What a search says of a hit, apart from its segment."""
    fields: dict[str, Any] = {
        "similarity": _similarity(hit.cosine),
        "distance": 1.0 - hit.cosine,
    }
    if hit.score is not None:
        fields["score"] = hit.score
    if hit.explanation is not None:
        fields["explain"] = _explain(hit.explanation)
    if hit.highlights is not None:
        fields["highlights"] = hit.highlights
    return fields


def metadata_of(media_item_id: Id, segment: Segment) -> dict[str, Any]:
    """A SegmentMetadata."""
    return {
        **segment.metadata,
        "media_item_id": media_item_id,
        "segment_id": segment.id,
        "start_time": segment.start_time,
        "end_time": segment.end_time,
        "text": segment.text,
    }


def _similarity(cosine: float) -> float:
    return min(1.0, max(0.0, cosine))


def _explain(explanation: Explanation) -> dict[str, Any]:
    semantic, keyword = explanation.semantic, explanation.keyword
    return {
        "semantic": _part(semantic, similarity=_similarity(semantic.value)),
        "keyword": None if keyword is None else _part(keyword, bm25=keyword.value),
        "fusion": explanation.fusion,
    }


def _part(part: Part, **value: float) -> dict[str, Any]:
    return {"rank": part.rank, **value, "score": part.score}
