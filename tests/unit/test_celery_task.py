"""What the Celery task makes of its arguments, and that it never raises."""

import httpx
import pytest

from deployments.client import celery_tasks
from deployments.client.celery_tasks import _find, generate_embeddings
from deployments.client.sync_client import Client

SEGMENTS = [{"id": 1, "text": "RSI", "start_time": 0, "end_time": 3}]
HANDED = {"media_item_id": 5, "transcript_segments": SEGMENTS, "concepts": ["RSI"]}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((5, SEGMENTS), {}),
        ((), {"media_item_id": 5, "transcript_segments": SEGMENTS}),
        ((5,), {"transcript_segments": SEGMENTS}),
        # In a chain: `.s(5, segments)` after a step with any result.
        (({"status": "success"}, 5, SEGMENTS), {}),
        ((None, 5, SEGMENTS), {}),
        ((["RSI", "support"], 5, SEGMENTS), {}),
        (("done", 5), {"transcript_segments": SEGMENTS}),
        ((7,), {"media_item_id": 5, "transcript_segments": SEGMENTS}),
        (({"media_item_id": 9, "transcript_segments": []}, 5, SEGMENTS), {}),
        # `.s()` after a step that hands over both, `.s(5)` after one that hands over segments.
        ((HANDED,), {}),
        ((HANDED,), {"media_item_id": 5}),
        (({"transcript_segments": SEGMENTS}, 5), {}),
        ((SEGMENTS, 5), {}),
        ((SEGMENTS,), {"media_item_id": 5}),
    ],
)
def test_both_are_found_wherever_they_are(arguments, named):
    assert _find(arguments, named) == (5, SEGMENTS)


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        ((), {}, "no media_item_id"),
        ((5,), {}, "no transcript_segments"),
        (({"status": "failed", "error": "x"},), {}, "no media_item_id"),
        ((1, 2, 3, 4), {}, "got 4 arguments"),
        ((5, "text"), {}, "is str, not a list"),
        ((5, SEGMENTS), {"media": 5}, "no argument 'media'"),
    ],
)
def test_what_is_missing_is_told_and_not_raised(arguments, named, message):
    answer = generate_embeddings(*arguments, **named)
    assert set(answer) == {"status", "error"}
    assert answer["status"] == "failed"
    assert message in answer["error"]


def test_a_service_that_is_not_there_is_a_failure_and_not_an_exception(monkeypatch):
    monkeypatch.setenv("EMBEDDINGS_SERVICE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda _: None)
    answer = generate_embeddings(5, SEGMENTS)
    assert answer["status"] == "failed"
    assert answer["error"].startswith("http://127.0.0.1:9 doesn't answer: ")


def test_requests_have_120_seconds(monkeypatch):
    seen = []

    def handle(request):
        seen.append(request)
        stored = {"media_item_id": 5, "embedding_type": "transcript", "embeddings_created": 1}
        return httpx.Response(200, json=stored | {"changed": 1, "removed": 0, "truncated": 0})

    def client(**options):
        return Client("http://service", transport=httpx.MockTransport(handle), **options)

    monkeypatch.setattr(celery_tasks, "Client", client)
    answer = generate_embeddings(5, SEGMENTS)
    assert answer == {"status": "success", "media_item_id": 5, "embeddings_created": 1}
    assert str(seen[0].url) == "http://service/embed"
    assert seen[0].extensions["timeout"]["read"] == 120
