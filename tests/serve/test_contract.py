"""What existing callers rely on, over HTTP against the real service with the real model."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from sentence_transformers import SentenceTransformer

from deployments.core.encoding.model_source import find_model
from tests.serve.prometheus import wait_for_metrics

SEGMENTS = [
    {"id": 1, "text": "RSI indicator measures momentum", "start_time": 0, "end_time": 3},
    {"id": 2, "text": "When RSI is above 70 it's overbought", "start_time": 3, "end_time": 6},
    {"id": 3, "text": "Support and resistance levels", "start_time": 6, "end_time": 9},
]
TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture(scope="module")
def model():
    return SentenceTransformer(str(find_model("all-MiniLM-L6-v2")), device="cpu")


def test_the_old_quick_test_script(service, capsys):
    base_url = service.url
    print(requests.get(f"{base_url}/health").json()["status"])
    embed = {"media_item_id": 1, "embedding_type": "transcript", "segments": SEGMENTS}
    response = requests.post(f"{base_url}/embed", json=embed)
    print(response.json()["embeddings_created"])
    query = "relative strength index overbought"
    search = {"query": query, "embedding_type": "transcript", "top_k": 5}
    for result in requests.post(f"{base_url}/search", json=search).json()["results"]:
        print(f"{result['similarity']:.2f}: {result['metadata']['text'][:50]}")
    print(requests.get(f"{base_url}/stats").json()["total_vectors"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["healthy", "3"]
    assert re.fullmatch(r"0\.\d\d: When RSI is above 70 it's overbought", lines[2])
    assert int(lines[-1]) >= 3


def test_embed_and_search_in_the_contract_s_shapes(service, model):
    answer = service.embed("shapes", SEGMENTS)
    assert re.fullmatch(TIMESTAMP, answer["timestamp"])
    assert answer["status"] == "success"
    assert (answer["media_item_id"], answer["embedding_type"]) == ("shapes", "transcript")
    assert answer["embeddings_created"] == 3
    query = "relative strength index overbought"
    found = [
        result
        for result in service.search(query, top_k=100)
        if result["metadata"]["media_item_id"] == "shapes"
    ]
    cosines = (
        model.encode([query], normalize_embeddings=True)
        @ model.encode([segment["text"] for segment in SEGMENTS], normalize_embeddings=True).T
    )
    best_first = [SEGMENTS[i]["id"] for i in np.argsort(-cosines[0])]
    assert [result["metadata"]["segment_id"] for result in found] == best_first
    for result in found:
        segment_id = result["metadata"]["segment_id"]
        cosine = float(cosines[0, segment_id - 1])
        assert result["distance"] == pytest.approx(1 - cosine, abs=1e-4)
        assert result["similarity"] == pytest.approx(max(cosine, 0), abs=1e-4)
    assert found[0]["metadata"] == {
        "media_item_id": "shapes",
        "segment_id": 2,
        "start_time": 3,
        "end_time": 6,
        "text": "When RSI is above 70 it's overbought",
    }


def test_modes_find_by_meaning_by_words_and_by_both(service):
    texts = ["The S&P 500 fell again", "Equities lost ground on Monday", "Read the 10-K filing"]
    parts = [{"id": i, "text": text} for i, text in enumerate(texts)]
    service.embed("modes", parts, "clip")

    def found(query, mode):
        results = service.search(query, "clip", top_k=1000, mode=mode, explain=True)
        return {
            result["metadata"]["segment_id"]: result
            for result in results
            if result["metadata"]["media_item_id"] == "modes"
        }

    assert list(found("S&P 500", "keyword")) == [0]
    assert list(found("10-K", "keyword")) == [2]
    assert found("stocks declined", "keyword") == {}
    semantic = found("S&P 500 stocks declined", "semantic")
    hybrid = found("S&P 500 stocks declined", "hybrid")
    assert set(hybrid) == set(semantic) == {0, 1, 2}
    assert next(iter(hybrid)) == 0
    for name, result in hybrid.items():
        told = result["explain"]
        assert told["semantic"]["score"] + told["keyword"]["score"] == pytest.approx(
            result["score"]
        )
        assert result["distance"] == pytest.approx(semantic[name]["distance"], abs=1e-5)
        assert told["keyword"]["rank"] == (1 if name == 0 else None)
    assert "score" not in semantic[0]
    by_url = service.get("/search/clips?query=10-K&mode=keyword").json()["results"]
    assert [result["metadata"]["text"] for result in by_url] == ["Read the 10-K filing"]
    assert service.get("/search/clips?query=x&mode=none").status_code == 422


def test_a_repeated_request_stores_nothing_twice(service):
    first = service.embed("repeated", SEGMENTS)
    before = service.get("/stats").json()["transcript_vectors"]
    second = service.embed("repeated", SEGMENTS)
    assert second["embeddings_created"] == first["embeddings_created"] == 3
    assert (first["changed"], second["changed"]) == (3, 0)
    assert service.get("/stats").json()["transcript_vectors"] == before


def test_1_and_the_string_1_are_one_name(service):
    service.embed(70, [{"id": 7, "text": "the first form of it"}], "clip")
    service.embed("70", [{"id": "7", "text": "the second form of it"}], "clip")
    found = [
        result["metadata"]
        for result in service.search("form of it", "clip", top_k=100)
        if str(result["metadata"]["media_item_id"]) == "70"
    ]
    assert [(each["media_item_id"], each["segment_id"]) for each in found] == [("70", "7")]
    assert found[0]["text"] == "the second form of it"


def test_changed_text_replaces_its_vector(service):
    service.embed("changed", [{"id": 1, "text": "options lose value as time passes"}], "clip")
    service.embed("changed", [{"id": 1, "text": "a hammer candle has a long lower wick"}], "clip")
    top = service.search("a hammer candle has a long lower wick", "clip", top_k=1)[0]
    assert top["metadata"]["media_item_id"] == "changed"
    assert top["similarity"] == pytest.approx(1, abs=1e-5)
    assert service.search("options lose value as time passes", "clip", min_similarity=0.99) == []


def test_replace_leaves_the_request_s_segments_only(service):
    service.embed("replaced", SEGMENTS, "frame")
    answer = service.embed("replaced", [SEGMENTS[2]], "frame", replace=True)
    assert (answer["embeddings_created"], answer["changed"], answer["removed"]) == (1, 0, 2)
    kept = [
        result["metadata"]["segment_id"]
        for result in service.search("RSI", "frame", top_k=100)
        if result["metadata"]["media_item_id"] == "replaced"
    ]
    assert kept == [3]


def test_delete_says_how_many(service):
    service.embed("gone/for good", SEGMENTS, "clip")
    service.embed("gone/for good", SEGMENTS[:1], "frame")
    answer = service.delete("/media/gone/for%20good?embedding_type=frame").json()
    assert re.fullmatch(TIMESTAMP, answer.pop("timestamp"))
    assert answer == {
        "status": "success",
        "media_item_id": "gone/for good",
        "embedding_type": "frame",
        "embeddings_deleted": 1,
    }
    assert service.delete("/media/gone/for%20good").json()["embeddings_deleted"] == 3
    assert service.delete("/media/gone/for%20good").json()["embeddings_deleted"] == 0


def test_moments_bring_together_what_is_said_and_shown(service):
    service.embed(
        "moments",
        [
            {
                "id": 1,
                "text": "a doji candle opens and closes alike",
                "start_time": 0,
                "end_time": 6,
            },
            {"id": 2, "text": "the doji candle shows hesitation", "start_time": 6, "end_time": 12},
            {
                "id": 3,
                "text": "now for something else, dividends",
                "start_time": 16,
                "end_time": 22,
            },
        ],
    )
    service.embed("moments", [{"id": 1, "text": "doji candle", "start_time": 8}], "frame")
    wanted = {"filter": {"media_item_id": "moments"}, "context": 1}
    for mode in ("semantic", "hybrid"):
        body = {"query": "doji candle", "mode": mode, **wanted}
        answer = service.post("/search/moments", body).json()
        moments = answer["moments"]
        spans = [(each["start_time"], each["end_time"]) for each in moments]
        assert spans[0][0] in (0, 6)
        assert spans[0][1] == 12
        assert [start for start, _ in sorted(spans)][-1] == 16
        assert answer["exhausted"] is True
        (frame,) = moments[0]["evidence"]["frame"]
        assert frame["similarity"] == pytest.approx(1, abs=1e-4)
        assert [each["segment_id"] for each in moments[0]["context"]["after"]] == [3]


def test_search_by_url_answers_as_post(service):
    service.embed("by url", SEGMENTS, "frame")
    posted = service.search("support levels", "frame", top_k=3)
    for path in ("/search/frames?", "/embeddings/search?embedding_type=frame&"):
        answer = service.get(f"{path}query=support%20levels&top_k=3").json()
        assert answer["results"] == posted
        assert (answer["query"], answer["embedding_type"]) == ("support levels", "frame")


def test_min_similarity(service):
    service.embed("similar", SEGMENTS)
    for result in service.search("overbought RSI", min_similarity=0.5, top_k=100):
        assert result["similarity"] >= 0.5
    assert service.search("overbought RSI", min_similarity=1) == []


def test_truncation_is_reported(service):
    long = " ".join(f"word{i}" for i in range(400))
    segments = [{"id": 1, "text": long}, {"id": 2, "text": "short"}]
    assert service.embed("long", segments)["truncated"] == 1
    assert service.embed("long", segments)["truncated"] == 1


def test_further_fields_come_back_exactly(service):
    further = {"ticker": "SPY", "tags": ["a", "b"], "n": {"x": [1, 2.5, None, True]}, "é": "日本"}
    text = "an unusual zebra\x07 crossing\n\x1b[1m"
    service.embed("fields", [{"id": "s", "text": text, **further}], "clip")
    metadata = service.search(text, "clip", top_k=1)[0]["metadata"]
    assert metadata == {
        "media_item_id": "fields",
        "segment_id": "s",
        "start_time": None,
        "end_time": None,
        "text": text,
        **further,
    }


def test_stats_and_health(service):
    stats = service.get("/stats").json()
    assert (stats["model_name"], stats["embedding_dimension"]) == ("all-MiniLM-L6-v2", 384)
    kinds = ("transcript_vectors", "frame_vectors", "clip_vectors")
    assert stats["total_vectors"] == sum(stats[kind] for kind in kinds)
    assert re.fullmatch(TIMESTAMP, stats["timestamp"])
    health = service.get("/health").json()
    assert (health["status"], health["service"]) == ("healthy", "embeddings-service")
    assert health["stats"].keys() == stats.keys()


def test_concurrent_searches_answer_each_its_own(service):
    words = ["gold", "banana", "volcano", "violin", "glacier", "tennis", "cathedral", "penguin"]
    service.embed("own", [{"id": word, "text": f"a story about a {word}"} for word in words])
    with ThreadPoolExecutor(16) as threads:
        asked = words * 12
        answers = list(threads.map(lambda word: service.search(f"{word} story", top_k=1), asked))
    assert [answer[0]["metadata"]["segment_id"] for answer in answers] == asked


@pytest.mark.parametrize(
    ("send", "status", "code"),
    [
        (lambda s: s.post("/embed", {"media_item_id": 1}), 422, "invalid_input"),
        (lambda s: s.post("/search", {"query": " "}), 422, "invalid_input"),
        (lambda s: s.post("/search", {"query": "x", "top_k": 10**6}), 422, "invalid_input"),
        (lambda s: s.get("/nowhere"), 404, "not_found"),
        (lambda s: s.get("/embed"), 405, "method_not_allowed"),
        (
            lambda s: requests.post(s.url + "/embed", data=b"x" * (33 << 20), timeout=60),
            413,
            "body_too_large",
        ),
    ],
)
def test_errors_are_problem_documents(service, send, status, code):
    response = send(service)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == code
    assert "Traceback" not in response.text


def test_vectors_agree_with_sentence_transformers(service, model):
    texts = ["gap up", "The stochastic oscillator crossed.", "résumé of a naïve trader " * 3]
    service.embed("vectors", [{"id": i, "text": text} for i, text in enumerate(texts)], "clip")
    queries = ["stochastic", "what is a gap?", "trader"]
    expected = (
        model.encode(queries, normalize_embeddings=True)
        @ model.encode(texts, normalize_embeddings=True).T
    )
    for query, cosines in zip(queries, expected, strict=True):
        found = {
            result["metadata"]["segment_id"]: 1 - result["distance"]
            for result in service.search(query, "clip", top_k=1000)
            if result["metadata"]["media_item_id"] == "vectors"
        }
        np.testing.assert_allclose([found[i] for i in range(len(texts))], cosines, atol=1e-4)


def test_requests_and_answers_larger_than_a_grpc_message(service):
    """Calls between replicas carry 4 MiB unless they are told otherwise."""
    note = "n" * 5000
    segments = [{"id": i, "text": "the same few words", "note": note} for i in range(2000)]
    assert service.embed("large", segments, "clip")["embeddings_created"] == 2000
    found = service.search("the same few words", "clip", top_k=1000)
    assert [result["metadata"]["segment_id"] for result in found] == list(range(1000))
    assert {result["metadata"]["note"] for result in found} == {note}
    assert service.delete("/media/large").json()["embeddings_deleted"] == 2000


def test_metrics_tell_what_the_index_holds_and_the_encoder_did(service):
    service.embed("metrics", [{"id": 1, "text": "a segment for the metrics"}], "clip")
    service.search("a segment for the metrics", "clip")
    stats = service.get("/stats").json()
    metrics = wait_for_metrics(
        service,
        lambda found: (
            found.value("embeddings_index_vectors") == stats["total_vectors"]
            and "embeddings_index_search_seconds_count" in found.names
            and "embeddings_encoder_rows_total" in found.names
        ),
    )
    for kind in ("transcript", "frame", "clip"):
        vectors = metrics.value("embeddings_index_vectors", embedding_type=kind)
        assert vectors == stats[f"{kind}_vectors"]
    assert metrics.value("embeddings_store_commit_id") >= 1
    assert metrics.value("embeddings_store_last_sequence") >= stats["total_vectors"]
    assert metrics.value("embeddings_store_damaged") == 0
    assert metrics.value("embeddings_store_damaged_rows") == 0
    assert metrics.value("embeddings_encoder_rows_total") >= 2
    assert metrics.value("embeddings_encoder_batches_total") >= 1
    useful = metrics.value("embeddings_encoder_useful_tokens_total")
    assert 0 < useful <= metrics.value("embeddings_encoder_padded_tokens_total")
    assert metrics.value("embeddings_encoder_encode_seconds_total") > 0
    for priority in ("query", "bulk"):
        assert metrics.value("embeddings_encoder_queued_tokens", priority=priority) == 0
    assert metrics.value("embeddings_index_search_seconds_count") >= 1
    assert metrics.value("embeddings_index_search_seconds_sum") > 0
