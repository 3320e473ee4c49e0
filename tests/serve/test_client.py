"""The Python client against the real service."""

import numpy as np
import pytest

from deployments.client import AsyncClient, Client, InvalidRequest, NotFound

LESSON = [
    {"id": 1, "text": "RSI indicator measures momentum", "start_time": 0, "end_time": 3},
    {"id": 2, "text": "When RSI is above 70 it's overbought", "start_time": 3, "end_time": 6},
    {"id": 3, "text": "Support and resistance levels", "start_time": 6, "end_time": 9, "page": 4},
]


@pytest.fixture
def client(service):
    with Client(service.url) as client:
        yield client


def only(item):
    return {"filter": {"media_item_id": item}}


def test_what_is_embedded_is_found_listed_and_deleted(client):
    stored = client.embed("client-1", LESSON)
    assert (stored.media_item_id, stored.embeddings_created, stored.changed) == ("client-1", 3, 3)
    assert client.embed("client-1", LESSON).changed == 0
    found = client.search("relative strength index overbought", **only("client-1"), context=1)
    assert len(found) == 3
    assert found.exhausted
    best = found[0]
    assert best.segment_id == 2
    assert (best.text, best.start_time, best.end_time) == (LESSON[1]["text"], 3, 6)
    assert best.similarity == pytest.approx(1 - best.distance)
    assert [segment.segment_id for segment in best.context.before] == [1]
    near = client.similar("client-1", 1, top_k=1, **only("client-1"))
    assert near[0].segment_id == 2
    listed = list(client.segments("client-1", page_size=2))
    assert [(segment.segment_id, segment.embedding_type) for segment in listed] == [
        (1, "transcript"),
        (2, "transcript"),
        (3, "transcript"),
    ]
    assert listed[2].metadata == {"page": 4}
    counts = {item.media_item_id: item.segments for item in client.media(page_size=1)}
    assert counts["client-1"]["transcript"] == 3
    assert client.embed("client-1", LESSON[:1], replace=True).removed == 2
    assert client.delete_media("client-1").embeddings_deleted == 1
    assert client.delete_media("client-1").embeddings_deleted == 0
    with pytest.raises(NotFound, match="client-1"):
        list(client.segments("client-1"))


def test_words_are_marked_and_batches_answered_in_order(client):
    client.embed("client-2", LESSON, "clip")
    options = {"embedding_type": "clip", "mode": "keyword", **only("client-2")}
    first, second = client.search_batch(
        ["resistance", {"query": "momentum", "highlight": True}], **options
    )
    assert [hit.segment_id for hit in first] == [3]
    ((start, end),) = second[0].highlights
    assert second[0].text[start:end] == "momentum"
    assert second[0].score > 0


def test_moments_join_what_is_said_and_shown(client):
    client.embed("client-3", LESSON)
    client.embed("client-3", [{"id": 1, "text": "a chart with the RSI", "start_time": 4}], "frame")
    best, *_ = client.moments("RSI above 70 on a chart", **only("client-3"), context=1)
    assert best.media_item_id == "client-3"
    assert best.start_time <= 3 < best.end_time
    assert {hit.text for hit in best.evidence["frame"]} == {"a chart with the RSI"}
    assert best.context is not None


def test_vectors_are_those_that_searches_compare(client):
    client.embed("client-4", LESSON)
    query = "relative strength index overbought"
    vectors = np.array(client.encode([segment["text"] for segment in LESSON]).vectors)
    asked = client.encode(query, input_type="query")
    assert vectors.shape == (3, 384)
    assert asked.model == client.stats().model_name == "all-MiniLM-L6-v2"
    cosines = vectors @ np.array(asked.vectors[0])
    hits = client.search(query, **only("client-4"))
    by_id = {hit.segment_id: 1 - hit.distance for hit in hits}
    assert [by_id[i] for i in (1, 2, 3)] == pytest.approx(list(cosines), abs=1e-5)


def test_store_many_stores_what_an_iterator_yields(client):
    rows = (
        {"media_item_id": f"client-many-{i % 3}", "id": i, "text": f"lesson number {i}"}
        for i in range(90)
    )
    told = []
    stored = client.store_many(rows, batch_size=20, in_flight=2, progress=told.append)
    assert (stored.embeddings_created, stored.changed) == (90, 90)
    assert told[-1] == stored
    listed = [s.segment_id for i in range(3) for s in client.segments(f"client-many-{i}")]
    assert sorted(listed) == list(range(90))


def test_a_wrong_request_says_what_is_wrong(client):
    with pytest.raises(InvalidRequest, match="top_k") as raised:
        client.search("x", top_k=0)
    assert raised.value.errors[0].location == "body.top_k"
    assert raised.value.request_id
    with pytest.raises(NotFound, match="isn't served here"):
        client.encode("x", model="another")


async def test_the_asynchronous_client_does_the_same(service):
    async with AsyncClient(service.url) as client:
        assert (await client.health()).healthy

        async def rows():
            for i in range(30):
                yield {"media_item_id": "client-async", "id": i, "text": f"part {i} of a talk"}

        stored = await client.store_many(rows(), "clip", batch_size=7)
        assert stored.embeddings_created == 30
        hits = await client.search(
            "part 7 of a talk", embedding_type="clip", **only("client-async")
        )
        assert hits[0].segment_id == 7
        listed = [s.segment_id async for s in client.segments("client-async", page_size=9)]
        assert sorted(listed) == list(range(30))
        assert (await client.delete_media("client-async", "clip")).embeddings_deleted == 30
        assert (await client.stats()).embedding_dimension == 384
