"""Vectors that were made elsewhere, from the request to the answer."""

import base64

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from whole_service import whole_service

MEDIA = "own vectors"
DIMENSION = 384


def vectors(count, seed=0):
    found = np.random.default_rng(seed).standard_normal((count, DIMENSION))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


STORED = vectors(20)
ONLY = {"media_item_id": MEDIA}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with whole_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def stored(service):
    segments = [
        {"id": number, "timestamp": number, "embedding": (vector * (number + 1)).tolist()}
        for number, vector in enumerate(STORED)
    ]
    segments[3]["text"] = "a hammer candle at support"
    first = service.embed(MEDIA, segments, kind="frame")
    again = service.embed(MEDIA, segments, kind="frame")
    assert (first["embeddings_created"], first["changed"]) == (20, 20)
    assert (again["embeddings_created"], again["changed"]) == (20, 0)


def ask(service, path="/search", **fields):
    response = service.post(path, {"embedding_type": "frame", "filter": ONLY, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def ids(answer):
    return [result["metadata"]["segment_id"] for result in answer["results"]]


def base64_of(vector):
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(1, 2**31), top_k=st.integers(1, 20), as_list=st.booleans())
def test_searches_find_what_plain_numpy_finds(service, seed, top_k, as_list):
    (query,) = vectors(1, seed)
    cosines = STORED @ query
    best = np.argsort(-cosines)[:top_k]
    answer = ask(service, top_k=top_k, embedding=query.tolist() if as_list else base64_of(query))
    assert ids(answer) == best.tolist()
    assert [1 - each["distance"] for each in answer["results"]] == pytest.approx(
        cosines[best].tolist(), abs=1e-5
    )
    assert answer["query"] is None


def test_words_count_beside_a_vector(service):
    fields = {"embedding": STORED[5].tolist(), "top_k": 2}
    assert ids(ask(service, **fields))[0] == 5
    found = ask(service, **fields, query="hammer candle", mode="keyword", highlight=True)
    (result,) = found["results"]
    assert result["metadata"]["segment_id"] == 3
    assert result["similarity"] == pytest.approx(max(0, STORED[3] @ STORED[5]), abs=1e-5)
    assert result["highlights"]
    assert set(ids(ask(service, **fields, query="hammer candle", mode="hybrid"))) == {3, 5}


def test_texts_and_vectors_in_one_batch(service):
    queries = [
        {"embedding": STORED[7].tolist(), "embedding_type": "frame", "top_k": 1, "filter": ONLY},
        {"query": "anything", "embedding_type": "frame", "top_k": 1, "filter": ONLY},
        {"embedding": base64_of(STORED[8]), "embedding_type": "frame", "top_k": 1, "filter": ONLY},
    ]
    by_7, by_text, by_8 = service.post("/search/batch", {"queries": queries}).json()["responses"]
    assert (ids(by_7), len(ids(by_text)), ids(by_8)) == ([7], 1, [8])


def test_moments_by_vectors(service):
    fields = {"embeddings": {"frame": STORED[9].tolist()}, "types": {"frame": 1}, "top_k": 1}
    (moment,) = ask(service, "/search/moments", **fields, mode="semantic")["moments"]
    (best, *_) = moment["evidence"]["frame"]
    assert best["metadata"]["segment_id"] == 9
    assert best["similarity"] == pytest.approx(1, abs=1e-5)


def test_another_number_of_dimensions_is_refused_with_the_right_one(service):
    segments = [{"id": 1, "text": "as before"}, {"id": 2, "embedding": [1, 2, 3]}]
    stored = service.post("/embed", {**ONLY, "embedding_type": "frame", "segments": segments})
    asked = service.post("/search", {"embedding": [1, 2, 3], "embedding_type": "frame"})
    for response in (stored, asked):
        assert response.status_code == 422
        assert "3 numbers, but the frame index has vectors of 384" in response.json()["detail"]
    assert "segment 1" in stored.json()["detail"]


def test_without_its_vector_a_segment_is_encoded_from_its_text(service):
    text, own = "moving average crossover", STORED[0].tolist()
    service.embed("own, then not", [{"id": 1, "text": text, "embedding": own}])
    only = {"filter": {"media_item_id": "own, then not"}}
    (before,) = service.search(text, **only)
    assert before["similarity"] < 0.5
    assert service.embed("own, then not", [{"id": 1, "text": text}])["changed"] == 1
    (after,) = service.search(text, **only)
    assert after["similarity"] == pytest.approx(1, abs=1e-4)
