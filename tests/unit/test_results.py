import json

from hypothesis import given
from hypothesis import strategies as st

from deployments.core.api.results import answer_json, search_response_json
from deployments.core.api.search_schemas import SearchResponse
from deployments.core.search.answers import Answer
from deployments.core.segments import EmbeddingType, Hit, Segment

finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
metadata = st.dictionaries(
    texts,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | finite | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)
times = st.none() | st.integers(0, 10**6) | finite
ids = st.integers(-(2**63), 2**63 - 1) | texts
hits = st.lists(
    st.builds(
        Hit,
        st.floats(-1, 1),
        st.integers(1, 10**9),
        ids,
        st.builds(Segment, ids, texts, times, times, metadata),
    ),
    max_size=4,
)


@given(texts, st.sampled_from(EmbeddingType), hits)
def test_the_answer_is_the_search_response_of_the_hits(query, kind, found):
    answer = json.loads(search_response_json(query, kind, answer_json(Answer(found))))
    SearchResponse.model_validate(answer)
    assert list(answer) == ["query", "embedding_type", "results", "timestamp"]
    assert (answer["query"], answer["embedding_type"]) == (query, kind.value)
    assert len(answer["results"]) == len(found)
    for position, (result, hit) in enumerate(zip(answer["results"], found, strict=True)):
        assert result["index"] == position
        assert result["similarity"] == min(1.0, max(0.0, hit.cosine))
        assert result["distance"] == 1.0 - hit.cosine
        assert result["metadata"] == hit.segment.metadata | {
            "media_item_id": hit.media_item_id,
            "segment_id": hit.segment.id,
            "start_time": hit.segment.start_time,
            "end_time": hit.segment.end_time,
            "text": hit.segment.text,
        }


def test_integers_beyond_64_bits_are_written_in_full():
    hit = Hit(0.5, 1, 1, Segment(1, "a", metadata={"big": 2**80, "text": "not this", "é": "ü"}))
    (result,) = json.loads(answer_json(Answer([hit])))["results"]
    assert result["metadata"]["big"] == 2**80
    assert result["metadata"]["text"] == "a"
    assert result["metadata"]["é"] == "ü"
