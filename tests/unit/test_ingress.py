"""The REST API over a backend in memory: shapes, limits and errors, without Ray."""

import json
import re
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from deployments.core.api.results import answer_json
from deployments.core.api.search_schemas import SearchResponse
from deployments.core.damage import Salvage
from deployments.core.errors import (
    FolderLocked,
    Overloaded,
    ServiceError,
    StoreDamaged,
    StoreFull,
)
from deployments.core.search.answers import Answer
from deployments.core.segments import (
    DeleteMedia,
    EmbeddingType,
    Explanation,
    Hit,
    IndexState,
    IndexStats,
    IndexType,
    ModelIdentity,
    Part,
    Search,
    SearchMode,
    Segment,
    UpsertResult,
)
from deployments.core.settings import Settings
from deployments.rest.application import create_app

URL = "http://localhost"
STATS = IndexStats(
    dict.fromkeys(EmbeddingType, ModelIdentity("all-MiniLM-L6-v2", "f" * 64, 384)),
    {EmbeddingType.TRANSCRIPT: 3, EmbeddingType.FRAME: 2, EmbeddingType.CLIP: 1},
    6,
    indices={
        EmbeddingType.TRANSCRIPT: IndexState(IndexType.AUTO, IndexType.PQ, 3, 2, 4, True, 0.5, 0.98)
    },
    last_write_at=1763672400.9,
)
HIT = Hit(0.75, 9, 1, Segment(2, "RSI above 70", 3.5, 7.2, {"ticker": "SPY", "tags": ["rsi"]}))


class RecordingBackend:
    """Answers with what it was given and keeps what it was asked."""

    encoder_replicas = 2

    def __init__(self):
        self.asked = []
        self.error = None
        self.hits = [HIT]
        self.exhausted = False
        self.counts = STATS

    def _take(self, request):
        self.asked.append(request)
        if self.error is not None:
            raise self.error

    async def embed(self, upsert):
        self._take(upsert)
        return UpsertResult(len(upsert.segments), len(upsert.segments), 0, 1)

    async def search(self, query):
        self._take(query)
        return answer_json(Answer(self.hits, self.exhausted))

    async def delete(self, deletion):
        self._take(deletion)
        return 4

    async def stats(self):
        self._take("stats")
        return self.counts

    async def check(self):
        self._take("check")
        return self.counts


@pytest.fixture
def backend():
    return RecordingBackend()


@pytest.fixture
def client(backend):
    settings = Settings(
        embeddings_max_segments=3,
        embeddings_max_text_chars=100,
        embeddings_max_top_k=50,
        embeddings_max_body_bytes=4096,
    )
    app = create_app(backend, settings)
    with TestClient(app, URL, raise_server_exceptions=False) as client:
        yield client


def embed_body(**changes):
    segment = {"id": 1, "text": "RSI", "start_time": 0, "end_time": 3}
    body = {"media_item_id": 1, "embedding_type": "transcript", "segments": [segment]}
    return body | changes


def with_segment(**changes):
    return embed_body(segments=[{"id": 1, "text": "RSI"} | changes])


def assert_problem(response, status, code, *parts):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["title"]
    assert problem["type"] == "about:blank"
    for part in parts:
        assert part in json.dumps(problem)
    assert "Traceback" not in response.text


def test_embed_answers_in_the_shape_of_the_contract(client, backend):
    response = client.post("/embed", json=embed_body())
    body = response.json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body.pop("timestamp"))
    assert body == {
        "status": "success",
        "media_item_id": 1,
        "embedding_type": "transcript",
        "embeddings_created": 1,
        "changed": 1,
        "removed": 0,
        "truncated": 1,
    }
    assert backend.asked[0].segments == (Segment(1, "RSI", 0, 3, {}),)


def test_search_answers_in_the_shape_of_the_contract(client, backend):
    response = client.post(
        "/search",
        json={
            "query": "overbought",
            "embedding_type": "frame",
            "top_k": 5,
            "min_similarity": 0.5,
        },
    )
    body = response.json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body.pop("timestamp"))
    assert body == {
        "query": "overbought",
        "embedding_type": "frame",
        "results": [
            {
                "index": 0,
                "similarity": 0.75,
                "distance": 0.25,
                "metadata": {
                    "media_item_id": 1,
                    "segment_id": 2,
                    "start_time": 3.5,
                    "end_time": 7.2,
                    "text": "RSI above 70",
                    "ticker": "SPY",
                    "tags": ["rsi"],
                },
            }
        ],
    }
    asked = backend.asked[0].search
    assert (asked.embedding_type, asked.top_k, asked.min_similarity) == ("frame", 5, 0.5)


def test_search_defaults(client, backend):
    assert client.post("/search", json={"query": "x"}).json()["embedding_type"] == "transcript"
    asked = backend.asked[0].search
    assert (asked.embedding_type, asked.top_k, asked.min_similarity) == ("transcript", 10, 0)


URLS = ["/search/transcripts", "/search/frames", "/search/clips", "/embeddings/search"]


@pytest.mark.parametrize("mode", list(SearchMode))
@pytest.mark.parametrize("explain", [True, False])
def test_a_search_has_a_mode(client, backend, mode, explain):
    fields = {"query": "S&P 500", "mode": mode, "explain": explain}
    client.post("/search", json=fields)
    for url in URLS:
        assert client.get(url, params=fields).status_code == 200
    assert len(backend.asked) == 5
    for asked in backend.asked:
        assert (asked.text, asked.search.mode, asked.search.explain) == ("S&P 500", mode, explain)
        assert asked.search.text == ("" if mode == "semantic" else "S&P 500")


def test_the_old_requests_are_semantic_searches(client, backend):
    client.post("/search", json={"query": "x"})
    for url in URLS:
        client.get(url, params={"query": "x"})
    assert {replace(asked.search, embedding_type="frame") for asked in backend.asked} == {
        Search("frame", 10)
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [("mode", "fuzzy"), ("mode", ""), ("mode", "HYBRID"), ("explain", "perhaps")],
)
def test_a_wrong_mode_is_a_problem(client, field, value):
    body = client.post("/search", json={"query": "x", field: value})
    assert_problem(body, 422, "invalid_input", f"body.{field}")
    for url in URLS:
        response = client.get(url, params={"query": "x", field: value})
        assert_problem(response, 422, "invalid_input", f"query.{field}")


def test_an_explained_result_has_ranks_and_scores(client, backend):
    told = Explanation(Part(3, 0.75, 0.5), Part(None, 0.0, -0.25), 0.25)
    backend.hits = [replace(HIT, score=0.25, explanation=told)]
    body = client.post("/search", json={"query": "x", "mode": "hybrid", "explain": True}).json()
    (result,) = body["results"]
    assert (result["index"], result["similarity"], result["score"]) == (0, 0.75, 0.25)
    assert result["metadata"]["text"] == "RSI above 70"
    assert result["explain"] == {
        "semantic": {"rank": 3, "similarity": 0.75, "score": 0.5},
        "keyword": {"rank": None, "bm25": 0.0, "score": -0.25},
        "fusion": 0.25,
    }
    assert SearchResponse.model_validate(body).results[0].explain.fusion == 0.25


def test_an_explained_semantic_result_has_no_keyword_part(client, backend):
    backend.hits = [replace(HIT, explanation=Explanation(Part(1, 0.75)))]
    (result,) = client.post("/search", json={"query": "x", "explain": True}).json()["results"]
    assert "score" not in result
    assert result["explain"] == {
        "semantic": {"rank": 1, "similarity": 0.75, "score": None},
        "keyword": None,
        "fusion": None,
    }


def test_a_negative_cosine_is_a_similarity_of_zero(client, backend):
    backend.hits = [Hit(-0.25, 1, "a", Segment("b", "text"))]
    (result,) = client.post("/search", json={"query": "x"}).json()["results"]
    assert (result["similarity"], result["distance"]) == (0, 1.25)
    assert result["metadata"]["start_time"] is None


@pytest.mark.parametrize(
    ("url", "embedding_type", "top_k", "min_similarity"),
    [
        ("/search/transcripts?query=q&top_k=3&min_similarity=0.2", "transcript", 3, 0.2),
        ("/search/frames?query=q", "frame", 10, 0),
        ("/search/clips?query=q&top_k=7", "clip", 7, 0),
        ("/embeddings/search?query=q&top_k=4&embedding_type=clip", "clip", 4, 0),
        ("/embeddings/search?query=q", "transcript", 10, 0),
    ],
)
def test_search_by_url(client, backend, url, embedding_type, top_k, min_similarity):
    body = client.get(url).json()
    assert (body["query"], body["embedding_type"]) == ("q", embedding_type)
    asked = backend.asked[0].search
    assert (asked.embedding_type, asked.top_k, asked.min_similarity) == (
        embedding_type,
        top_k,
        min_similarity,
    )


@pytest.mark.parametrize(
    ("exact", "expected"), [("true", True), ("false", False), ("1", True), (None, False)]
)
@pytest.mark.parametrize("path", ["/search/clips", "/embeddings/search"])
def test_an_exact_search_can_be_asked_for(client, backend, path, exact, expected):
    parameters = {"query": "q"} if exact is None else {"query": "q", "exact": exact}
    assert client.get(path, params=parameters).status_code == 200
    body = {"query": "q"} if exact is None else {"query": "q", "exact": expected}
    assert client.post("/search", json=body).status_code == 200
    assert [query.search.exact for query in backend.asked] == [expected, expected]


def test_exact_is_true_or_false(client, backend):
    assert client.get("/search/clips", params={"query": "q", "exact": "maybe"}).status_code == 422
    assert client.post("/search", json={"query": "q", "exact": "maybe"}).status_code == 422
    assert backend.asked == []


def test_stats_and_health(client, backend):
    expected = {
        "model_name": "all-MiniLM-L6-v2",
        "embedding_dimension": 384,
        "transcript_vectors": 3,
        "frame_vectors": 2,
        "clip_vectors": 1,
        "total_vectors": 6,
        "salvage": None,
        "indices": {
            "transcript": {
                "model_name": "all-MiniLM-L6-v2",
                "embedding_dimension": 384,
                "configured": "auto",
                "type": "pq",
                "rows": 3,
                "deleted_rows": 2,
                "main_rows": 4,
                "building": True,
                "build_progress": 0.5,
                "recall_at_10": 0.98,
            }
        },
        "migration": None,
        "last_write": "2025-11-20T21:00:00Z",
        "encoder_replicas": 2,
    }
    stats = client.get("/stats").json()
    assert stats.pop("timestamp")
    assert stats == expected
    for url in ("/health", "/health/ready"):
        health = client.get(url).json()
        assert health.pop("timestamp")
        assert health["stats"].pop("timestamp")
        assert health == {
            "status": "healthy",
            "service": "embeddings-service",
            "stats": expected,
            "reason": None,
        }
    assert client.get("/health/live").json() == {"status": "alive"}


def test_health_tells_why_a_request_could_not_be_served(client, backend):
    backend.error = FolderLocked("/data is in use by process 17")
    response = client.get("/health")
    assert response.status_code == 503
    assert response.json()["status"] == "unhealthy"
    assert "process 17" in response.json()["reason"]
    assert client.get("/health/live").status_code == 200


def test_salvage_is_told(client, backend):
    backend.counts = replace(STATS, salvage=Salvage(5, 2, True, 0, ("7", "nine")))
    expected = {
        "intact_rows": 5,
        "lost_rows": 2,
        "lost_are_counted": True,
        "missing_commits": 0,
        "media_items": ["7", "nine"],
    }
    assert client.get("/stats").json()["salvage"] == expected
    health = client.get("/health").json()
    assert (health["status"], health["stats"]["salvage"]) == ("healthy", expected)
    assert health["reason"] == (
        "Salvage, read-only: 5 rows are intact, 2 are lost. Rows are lost of media items 7, nine."
    )


@pytest.mark.parametrize(
    ("path", "name"), [("17", 17), ("017", "017"), ("a/b%20c", "a/b c"), ("-4", -4), ("+4", "+4")]
)
def test_delete(client, backend, path, name):
    body = client.delete(f"/media/{path}?embedding_type=clip").json()
    assert backend.asked == [DeleteMedia(name, EmbeddingType.CLIP)]
    assert body["embeddings_deleted"] == 4
    assert body["media_item_id"] == name


@pytest.mark.parametrize("name", ["frames", "clips"])
def test_other_names_of_the_list(client, backend, name):
    kind = name.removesuffix("s")
    body = {"media_item_id": "v", "embedding_type": kind, name: [{"id": 1, "text": "chart"}]}
    assert client.post("/embed", json=body).json()["embeddings_created"] == 1
    assert backend.asked[0].segments == (Segment(1, "chart"),)


def test_a_frame_s_timestamp_is_its_start_time(client, backend):
    body = embed_body(
        embedding_type="frame",
        segments=[
            {"id": 1, "text": "a", "timestamp": 4.5},
            {"id": 2, "text": "b", "timestamp": 1, "start_time": 2},
        ],
    )
    client.post("/embed", json=body)
    assert backend.asked[0].segments == (
        Segment(1, "a", 4.5),
        Segment(2, "b", 2, None, {"timestamp": 1}),
    )


def test_further_fields_are_metadata(client, backend):
    further = {"ticker": "SPY", "nested": {"a": [1, 2.5, None, True]}, "größe": "ü"}
    assert client.post("/embed", json=with_segment(**further)).status_code == 200
    assert backend.asked[0].segments[0].metadata == further


@pytest.mark.parametrize(
    "text", ["a\tb\r\nc", "bell \x07", "\x1b[31mred", "a\x85b", "e\u0301 👍🏽 \u202e"]
)
def test_control_characters_other_than_null_are_kept_as_sent(client, backend, text):
    assert client.post("/embed", json=with_segment(text=text, note=text)).status_code == 200
    (segment,) = backend.asked[0].segments
    assert (segment.text, segment.metadata) == (text, {"note": text})


def test_names_that_a_segment_repeats_have_to_agree(client, backend):
    agreeing = with_segment(media_item_id="1", segment_id=1)
    assert client.post("/embed", json=agreeing).status_code == 200
    assert backend.asked[0].segments[0].metadata == {}
    assert_problem(
        client.post("/embed", json=with_segment(media_item_id=2)), 422, "invalid_input", "differs"
    )


def test_an_empty_list_is_no_error(client):
    response = client.post("/embed", json=embed_body(segments=[]))
    assert response.json()["embeddings_created"] == 0


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ([], "body"),
        ({}, "media_item_id"),
        (embed_body(media_item_id=None), "media_item_id"),
        (embed_body(media_item_id=True), "media_item_id"),
        (embed_body(media_item_id=1.5), "media_item_id"),
        (embed_body(media_item_id=2**63), "64 bits"),
        (embed_body(media_item_id=""), "1 to 512"),
        (embed_body(media_item_id="a\nb"), "printable"),
        (embed_body(media_item_id="x" * 513), "1 to 512"),
        (embed_body(embedding_type="video"), "transcript"),
        (embed_body(segments={}), "segments"),
        (embed_body(segments=[1]), "segments.0"),
        (embed_body(clips=[]), "one list"),
        (embed_body(segments=[{"id": i, "text": "x"} for i in range(4)]), "at most 3"),
        (embed_body(segments=[{"id": 1, "text": "x"}, {"id": "1", "text": "y"}]), "same id"),
        (with_segment(text=""), "white space"),
        (with_segment(text=" \n\t"), "white space"),
        (with_segment(text=None), "segments.0: a text is required"),
        (with_segment(text=5), "segments.0.text"),
        (with_segment(text="x" * 101), "101 characters"),
        (with_segment(text="a\x00b"), "null character"),
        (with_segment(start_time="soon"), "start_time"),
        (with_segment(start_time=True), "not true or false"),
        (with_segment(start_time=5, end_time=4), "before start_time"),
        (with_segment(start_time=10**400), "segments.0.start_time"),
        (with_segment(end_time=-(10**400)), "must be a number below 1.8e308"),
        (with_segment(note="a\x00b"), "null character"),
        (with_segment(big=2**70), "64 bits"),
        (with_segment(replace="x") | {"replace": "perhaps"}, "replace"),
    ],
)
def test_embed_refuses(client, backend, body, part):
    assert_problem(client.post("/embed", json=body), 422, "invalid_input", part)
    assert backend.asked == []


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b'{"media_item_id": 1, "embedding_type": "clip", "segments": [', "JSON"),
        (b'"\xff"', "UTF-8"),
        (json.dumps(with_segment(start_time=float("nan"))).encode(), "finite"),
        (json.dumps(with_segment(weight=float("inf"))).encode(), "NaN or Infinity"),
        (json.dumps(with_segment(text="a\ud800b")).encode(), "segments.0.text"),
        (json.dumps(with_segment(note={"k": ["\udfff"]})).encode(), "surrogate"),
        (json.dumps(embed_body(media_item_id="\ud800")).encode(), "media_item_id"),
        (json.dumps(with_segment(deep=None)).replace("null", "[" * 40 + "]" * 40).encode(), "deep"),
        (b"[" * 4000, "JSON"),
    ],
)
def test_embed_refuses_raw_bodies(client, backend, raw, part):
    response = client.post("/embed", content=raw, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"
    assert part.lower() in response.text.lower()
    assert backend.asked == []


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({}, "query"),
        ({"query": ""}, "white space"),
        ({"query": "x" * 101}, "101 characters"),
        ({"query": "a\x00"}, "null character"),
        ({"query": 5}, "query"),
        ({"query": "x", "top_k": 0}, "top_k"),
        ({"query": "x", "top_k": 51}, "at most 50"),
        ({"query": "x", "top_k": True}, "top_k"),
        ({"query": "x", "top_k": "many"}, "top_k"),
        ({"query": "x", "min_similarity": 1.1}, "min_similarity"),
        ({"query": "x", "min_similarity": -0.1}, "min_similarity"),
        ({"query": "x", "embedding_type": "video"}, "embedding_type"),
    ],
)
def test_search_refuses(client, backend, body, part):
    assert_problem(client.post("/search", json=body), 422, "invalid_input", part)
    assert backend.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "/search/transcripts",
        "/search/frames?query=%20",
        "/search/clips?query=x&top_k=-1",
        "/search/clips?query=x&min_similarity=nan",
        "/embeddings/search?query=x&embedding_type=video",
        "/embeddings/search?query=%00",
    ],
)
def test_search_by_url_refuses(client, backend, url):
    assert_problem(client.get(url), 422, "invalid_input")
    assert backend.asked == []


def test_a_value_that_was_refused_is_not_repeated(client):
    response = client.post("/embed", json=with_segment(start_time="a private word"))
    assert "private" not in response.text


def test_a_body_over_the_limit_is_refused_declared_or_chunked(client, backend):
    body = json.dumps(embed_body(note="x" * 5000)).encode()
    headers = {"Content-Type": "application/json"}
    assert_problem(client.post("/embed", content=body, headers=headers), 413, "body_too_large")
    chunks = (body[i : i + 1000] for i in range(0, len(body), 1000))
    assert_problem(client.post("/embed", content=chunks, headers=headers), 413, "body_too_large")
    assert backend.asked == []


def test_unknown_routes_and_methods(client):
    assert_problem(client.get("/nowhere"), 404, "not_found")
    assert_problem(client.get("/embed"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (Overloaded("full"), 429, "overloaded", "1"),
        (FolderLocked("taken"), 503, "folder_locked", "2"),
        (StoreFull("no room"), 507, "store_full", "30"),
        (StoreDamaged("row 7"), 503, "store_damaged", None),
        (ServiceError("odd"), 500, "internal_error", None),
        (RuntimeError("a secret"), 500, "internal_error", None),
    ],
)
def test_errors_of_the_backend(client, backend, error, status, code, retry_after):
    backend.error = error
    response = client.post("/embed", json=embed_body())
    assert_problem(response, status, code)
    assert response.headers.get("retry-after") == retry_after
    assert "secret" not in response.text


def test_the_documentation_names_every_route_and_every_error_shape(client):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) >= {
        "/embed",
        "/search",
        "/search/transcripts",
        "/search/frames",
        "/search/clips",
        "/embeddings/search",
        "/media/{media_item_id}",
        "/stats",
        "/health",
        "/health/ready",
        "/health/live",
    }
    assert "HTTPValidationError" not in json.dumps(document)
    assert document["components"]["schemas"]["EmbedRequest"]["examples"]
    assert client.get("/docs").status_code == 200
