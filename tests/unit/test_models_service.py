"""Indices with models of their own, from the request to the answer."""

import base64

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from whole_service import WholeService, whole_service

from deployments.core.configured_models import external_identity
from deployments.core.errors import SettingsError
from tests.fakes import write_tiny_model

DIMENSIONS = {"transcript": 384, "frame": 32, "clip": 6}
ELSEWHERE = "external:films:6"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(write_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def service(tmp_path_factory, tiny):
    """Texts by the default model, frames by a small one, clips by one that runs elsewhere."""
    models = {"embedding_model_frame": tiny, "embedding_model_clip": ELSEWHERE}
    with whole_service(tmp_path_factory.mktemp("service"), **models) as running:
        yield running


def units(count, dimension, seed):
    found = np.random.default_rng(seed).standard_normal((count, dimension))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


STORED = {kind: units(12, dimension, 1) for kind, dimension in DIMENSIONS.items()}


@pytest.fixture(scope="module")
def filled(service) -> WholeService:
    for kind, vectors in STORED.items():
        segments = [{"id": i, "embedding": each.tolist()} for i, each in enumerate(vectors)]
        assert service.embed("own", segments, kind=kind)["changed"] == 12
    return service


def test_each_index_tells_its_model(service, tiny):
    stats = service.get("/stats").json()
    told = {
        kind: (each["model_name"], each["embedding_dimension"])
        for kind, each in stats["indices"].items()
    }
    names = {"transcript": "all-MiniLM-L6-v2", "frame": tiny, "clip": ELSEWHERE}
    assert told == {kind: (name, DIMENSIONS[kind]) for kind, name in names.items()}
    assert (stats["model_name"], stats["embedding_dimension"]) == ("all-MiniLM-L6-v2", 384)
    assert service.get("/health").status_code == 200


def encoded(service, model, text, kind="document"):
    body = {"model": model, "input": text, "input_type": kind, "encoding_format": "base64"}
    response = service.post("/v1/embeddings", body)
    assert response.status_code == 200, response.text
    return np.frombuffer(base64.b64decode(response.json()["data"][0]["embedding"]), "<f4")


def test_texts_are_encoded_by_the_model_of_their_index(service, tiny):
    text, query = "the market opens higher", "market"
    for kind, model in (("transcript", "all-MiniLM-L6-v2"), ("frame", tiny)):
        service.embed("texts", [{"id": 1, "text": text}], kind=kind)
        (found,) = service.search(query, kind, filter={"media_item_id": "texts"})
        stored, asked = encoded(service, model, text), encoded(service, model, query, "query")
        assert len(asked) == DIMENSIONS[kind]
        assert 1 - found["distance"] == pytest.approx(float(stored @ asked), abs=1e-5)


def test_every_model_that_encodes_is_served(service, tiny):
    listed = service.get("/v1/models").json()["data"]
    assert [(each["id"], each["embedding_dimension"]) for each in listed] == [
        ("all-MiniLM-L6-v2", 384),
        (tiny, 32),
    ]
    assert service.get(f"/v1/models/{tiny}").json() == listed[1]
    refused = service.post("/v1/embeddings", {"model": ELSEWHERE, "input": "x"})
    assert refused.status_code == 404
    assert f"'all-MiniLM-L6-v2' and '{tiny}' are" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "what"),
    [
        ("/search", {"query": "x", "embedding_type": "clip"}, "the query has no embedding"),
        ("/search/moments", {"query": "x", "types": {"clip": 1}}, "the query has no embedding"),
        (
            "/embed",
            {
                "media_item_id": 1,
                "embedding_type": "clip",
                "segments": [{"id": 1, "embedding": [1] * 6}, {"id": 2, "text": "x"}],
            },
            "segment 1 has no embedding",
        ),
    ],
)
def test_an_index_of_vectors_from_elsewhere_takes_no_text(service, path, body, what):
    response = service.post(path, body)
    assert response.status_code == 422
    assert f"{what}, and the clip index takes vectors from elsewhere" in response.json()["detail"]
    assert "send `embedding`" in response.json()["detail"]


def test_one_wrong_query_fails_alone(filled):
    """Queries of several callers share a call; the fault of one is its own."""
    queries = [{"query": "x"}, {"embedding": [1, 2], "embedding_type": "frame"}]
    refused = filled.post("/search/batch", {"queries": queries})
    assert "2 numbers, but the frame index has vectors of 32" in refused.json()["detail"]
    assert filled.post("/search/batch", {"queries": queries[:1]}).status_code == 200


def test_moments_leave_out_what_a_text_cannot_be_compared_with(filled):
    body = {"query": "x", "mode": "semantic", "filter": {"media_item_id": "own"}, "top_k": 20}

    def types_of(**more):
        answer = filled.post("/search/moments", {**body, **more})
        assert answer.status_code == 200, answer.text
        return {kind for moment in answer.json()["moments"] for kind in moment["evidence"]}

    assert types_of() <= {"transcript", "frame"}
    own = {"embeddings": {"clip": STORED["clip"][0].tolist()}}
    assert "clip" in types_of(**own)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    asked=st.lists(
        st.tuples(st.sampled_from(list(DIMENSIONS)), st.integers(2, 10**6), st.integers(1, 12)),
        min_size=1,
        max_size=6,
    ),
    least=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_batches_find_what_plain_numpy_finds(filled, asked, least):
    queries, expected = [], []
    for kind, seed, top_k in asked:
        (query,) = units(1, DIMENSIONS[kind], seed)
        queries.append(
            {
                "embedding": query.tolist(),
                "embedding_type": kind,
                "top_k": top_k,
                "min_similarity": least,
                "filter": {"media_item_id": "own"},
            }
        )
        cosines = STORED[kind] @ query
        best = [int(i) for i in np.argsort(-cosines)[:top_k] if max(cosines[i], 0) >= least]
        expected.append((best, cosines[best].tolist()))
    answers = filled.post("/search/batch", {"queries": queries}).json()["responses"]
    for answer, (best, cosines) in zip(answers, expected, strict=True):
        found = answer["results"]
        assert [each["metadata"]["segment_id"] for each in found] == best
        assert [1 - each["distance"] for each in found] == pytest.approx(cosines, abs=1e-5)


def test_one_call_carries_each_model_s_texts_once(filled, tiny):
    filled.index.calls.clear()
    queries = [{"query": "market", "embedding_type": kind} for kind in ("transcript", "frame")]
    filled.post("/search/batch", {"queries": queries + queries})
    (call,) = filled.index.calls
    name, (searches, vectors, fingerprints) = call
    assert (name, len(searches), len(vectors)) == ("search", 2, 2)
    assert [len(vector) for vector in vectors] == [384, 32]
    assert set(fingerprints) == set(DIMENSIONS)


def test_a_service_with_vectors_from_elsewhere_only_is_healthy(tmp_path):
    with whole_service(tmp_path, embedding_model="external:3") as service:
        service.embed(1, [{"id": 1, "embedding": [1, 2, 3], "text": "a chart"}])
        answer = service.post("/search", {"embedding": [1, 2, 3.5]})
        assert len(answer.json()["results"]) == 1
        assert service.get("/health").status_code == 200
        assert service.get("/v1/models").json()["data"] == []


def test_the_identity_of_a_model_elsewhere_is_its_name():
    one, other = external_identity("external:a:8"), external_identity("external:b:8")
    assert (one.name, one.dimension) == ("external:a:8", 8)
    assert one == external_identity("external:a:8")
    assert one.fingerprint != other.fingerprint
    with pytest.raises(SettingsError, match="external:NAME:512"):
        external_identity("external:a")
