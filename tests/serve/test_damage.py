"""A damaged store under the real service: refused, repaired, and salvaged."""

import json
import sqlite3
import time
from contextlib import closing

import numpy as np
import pytest

from deployments.core.encoding.model_identity import read_identity
from deployments.core.encoding.model_source import find_model
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, Segment, Upsert
from tests.serve.prometheus import wait_for_metrics
from tests.serve.service import Service

TEXTS = [f"segment number {number} about candlesticks" for number in range(20)]


@pytest.fixture
def damaged(tmp_path):
    """A service over a folder with a flipped bit in a text, and the store as it was before."""
    service = Service(tmp_path)
    model = read_identity("all-MiniLM-L6-v2", find_model("all-MiniLM-L6-v2"))
    vectors = np.eye(len(TEXTS), model.dimension, dtype=np.float32)
    segments = tuple(Segment(number, text) for number, text in enumerate(TEXTS))
    with SegmentIndex.open(service.index_dir, model) as index:
        index.apply(
            [Upsert(EmbeddingType.CLIP, 1, segments, False, vectors, tuple(range(len(TEXTS))))]
        )
    store = service.index_dir / "store.sqlite3"
    whole = store.read_bytes()
    assert whole.count(TEXTS[7].encode()) == 1
    flipped = bytearray(whole)
    flipped[whole.index(TEXTS[7].encode())] ^= 1
    store.write_bytes(flipped)
    for path in service.index_dir.glob("*.faiss"):
        path.unlink()
    return service, whole


def health_of(service, accept):
    deadline = time.monotonic() + 120
    while True:
        try:
            response = service.get("/health")
            if accept(response.status_code, response.json()["reason"] or ""):
                return response.json()
        except (OSError, ValueError, KeyError):
            pass
        assert time.monotonic() < deadline, service.log.read_text()[-3000:]
        time.sleep(0.2)


def refused(response):
    problem = response.json()
    assert (response.status_code, problem["code"]) == (503, "store_damaged")
    return problem["detail"]


EMBED = {"media_item_id": 2, "embedding_type": "clip", "segments": [{"id": 1, "text": "new"}]}
SEARCH = {"query": "candlesticks", "embedding_type": "clip", "top_k": 50}


def test_a_damaged_store_is_refused_until_it_is_repaired(damaged):
    service, whole = damaged
    try:
        service.begin()
        health = health_of(service, lambda status, reason: "Store damaged" in reason)
        assert "Row 8 (clip, media item 1, segment 7) is not what was written" in health["reason"]
        assert health["status"] == "unhealthy"
        for response in (
            service.post("/embed", EMBED),
            service.post("/search", SEARCH),
            service.delete("/media/1"),
            service.get("/stats"),
        ):
            detail = refused(response)
            assert "Row 8 " in detail
            assert "embeddings-service restore" in detail
        (service.index_dir / "store.sqlite3").write_bytes(whole)
        health_of(service, lambda status, _: status == 200)
        assert len(service.search(**SEARCH_ARGUMENTS)) == len(TEXTS)
        forge_a_text(service.index_dir)
        assert "Row 3 (clip, media item 1, segment 2)" in refused(service.post("/search", SEARCH))
        assert "Writes are refused" in refused(service.post("/embed", EMBED))
        health_of(service, lambda status, reason: (status, "Row 3 " in reason) == (503, True))
        assert service.search("candlesticks", "frame") == []
    finally:
        service.stop()


def forge_a_text(folder):
    """What nobody but the service may do to its store, as damage would."""
    with closing(sqlite3.connect(folder / "store.sqlite3")) as connection, connection:
        connection.execute("UPDATE segments SET text='forged' WHERE seq=3")


SEARCH_ARGUMENTS = {"query": "candlesticks", "kind": "clip", "top_k": 50}


def test_salvage_serves_what_is_intact(damaged):
    service, _ = damaged
    before = (service.index_dir / "store.sqlite3").read_bytes()
    with Service(service.folder, {"embeddings_salvage": True}) as salvaging:
        found = salvaging.search(**SEARCH_ARGUMENTS)
        assert sorted(each["metadata"]["segment_id"] for each in found) == [
            number for number in range(len(TEXTS)) if number != 7
        ]
        assert all(each["metadata"]["text"] in TEXTS for each in found)
        assert "EMBEDDINGS_SALVAGE" in refused(salvaging.post("/embed", EMBED))
        assert "19 rows are intact, 1 are lost" in refused(salvaging.delete("/media/1"))
        stats = salvaging.get("/stats").json()
        expected = {
            "intact_rows": 19,
            "lost_rows": 1,
            "lost_are_counted": True,
            "missing_commits": 0,
            "media_items": ["1"],
        }
        assert (stats["total_vectors"], stats["salvage"]) == (19, expected), json.dumps(stats)
        assert "19 rows are intact" in salvaging.get("/health").json()["reason"]
        metrics = wait_for_metrics(
            salvaging, lambda found: "embeddings_salvage_rows" in found.names
        )
        assert metrics.value("embeddings_salvage_rows") == 19
        assert metrics.value("embeddings_store_damaged") == 1
        assert metrics.value("embeddings_store_damaged_rows") == 1
    assert (service.index_dir / "store.sqlite3").read_bytes() == before
