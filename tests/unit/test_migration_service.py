"""The model of a whole service changes, from the request to the answer, under load."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from whole_service import WholeService, whole_service

from tests.fakes import write_tiny_model

OLD = "all-MiniLM-L6-v2"
TEXTS = [
    "RSI above 70 is overbought",
    "a moving average crossover",
    "support and resistance levels",
    "position sizing and risk",
    "the market opens higher",
    "an earnings call transcript",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of 32 dimensions."""
    return str(write_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[WholeService]:
    with whole_service(tmp_path / "index") as running:
        yield running


def segments(start: int = 0) -> list[dict[str, Any]]:
    return [{"id": start + i, "text": f"{text} {start}"} for i, text in enumerate(TEXTS)]


def wait_for(service: WholeService, *states: str) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while True:
        response = service.get("/migrations")
        assert response.status_code == 200, response.text
        migration = response.json()["migration"]
        if migration is not None and migration["state"] in states:
            return migration  # type: ignore[no-any-return]
        assert time.monotonic() < deadline, migration
        time.sleep(0.02)


def results(service: WholeService, query: str, kind: str = "transcript") -> list[tuple[Any, ...]]:
    return [
        (each["metadata"]["media_item_id"], each["metadata"]["segment_id"], each["distance"])
        for each in service.search(query, kind, top_k=50)
    ]


def fresh(folder: Path, model: str, stored: dict[int, list[dict[str, Any]]]) -> list[Any]:
    """What a new service with a model answers to what was stored."""
    with whole_service(folder, embedding_model=model) as other:
        for media, each in stored.items():
            other.embed(media, each)
        return [results(other, text) for text in TEXTS]


def assert_same(found: list[Any], expected: list[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert [row[:2] for row in one] == [row[:2] for row in other]
        assert [row[2] for row in one] == pytest.approx([row[2] for row in other], abs=1e-5)


def test_a_migrated_service_answers_like_a_new_one(
    service: WholeService, tiny: str, tmp_path: Path
) -> None:
    service.embed(1, segments())
    service.embed(1, segments(), kind="frame")
    before = [results(service, text) for text in TEXTS]
    answer = service.post("/migrations", {"model": tiny})
    assert answer.status_code == 200, answer.text
    migration = wait_for(service, "switched")
    assert migration["indices"]["frame"] == {
        "from_model": OLD,
        "to_model": tiny,
        "overlap_at_10": 1.0,  # of six segments
        "queries": 6,
    }
    assert (migration["rows_done"], migration["rows"]) == (12, 12)
    stats = service.get("/stats").json()
    assert (stats["model_name"], stats["embedding_dimension"]) == (tiny, 32)
    assert stats["migration"]["state"] == "switched"
    assert {each["model_name"] for each in stats["indices"].values()} == {tiny}
    assert service.get("/health").status_code == 200
    service.embed(2, segments(10))
    stored = {1: segments(), 2: segments(10)}
    found = [results(service, text) for text in TEXTS]
    assert_same(found, fresh(tmp_path / "fresh", tiny, stored))

    assert service.client.post("/migrations/rollback").json()["migration"]["state"] == "ready"
    assert service.get("/stats").json()["model_name"] == OLD
    found = [results(service, text) for text in TEXTS]
    assert_same(found, fresh(tmp_path / "old", OLD, stored))
    only_first = [[row for row in each if row[0] == 1] for each in found]
    assert_same(only_first, before)

    assert service.client.post("/migrations/switch").json()["migration"]["state"] == "switched"
    assert service.client.delete("/migrations").json()["migration"] is None
    assert service.get("/stats").json()["model_name"] == tiny
    assert service.get("/stats").json()["migration"] is None
    assert service.client.post("/migrations/rollback").status_code == 409


def test_no_request_fails_while_the_model_changes_to_and_fro(
    service: WholeService, tiny: str
) -> None:
    service.embed(0, segments())
    ended = threading.Event()
    failures: list[Any] = []
    written: list[int] = []
    searches = [0]

    def write() -> None:
        for media in range(1, 10_000):
            if ended.is_set():
                return
            body = {"media_item_id": media, "embedding_type": "transcript"}
            response = service.post("/embed", {**body, "segments": segments(media * 10)[:2]})
            if response.status_code != 200:
                failures.append(response.text)
            written.append(media)

    def search() -> None:
        while not ended.is_set():
            query = TEXTS[searches[0] % len(TEXTS)]
            response = service.post("/search", {"query": query, "top_k": 5})
            if response.status_code != 200 or len(response.json()["results"]) != 5:
                failures.append(response.text)
            searches[0] += 1

    threads = [threading.Thread(target=each) for each in (write, search, search)]
    for thread in threads:
        thread.start()
    try:
        service.post("/migrations", {"model": tiny})
        wait_for(service, "switched")
        for _ in range(3):
            for act in ("rollback", "switch"):
                done, seen = len(written), searches[0]
                while len(written) < done + 2 or searches[0] < seen + 4:
                    time.sleep(0.01)
                response = service.client.post(f"/migrations/{act}")
                assert response.status_code == 200, response.text
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []
    stats = service.get("/stats").json()
    assert stats["total_vectors"] == 6 + 2 * len(written)
    assert stats["model_name"] == tiny
    everything = {row[:2] for row in results(service, "x")}
    assert len(everything) == min(50, 6 + 2 * len(written))


def test_one_index_alone_changes_its_model(service: WholeService, tiny: str) -> None:
    service.embed(1, segments())
    service.embed(1, segments(), kind="clip")
    before = results(service, TEXTS[0])
    body = {"model": tiny, "embedding_types": ["clip"], "switch_when_ready": False}
    assert service.post("/migrations", body).status_code == 200
    migration = wait_for(service, "ready")
    assert list(migration["indices"]) == ["clip"]
    assert service.get("/stats").json()["indices"]["clip"]["model_name"] == OLD
    assert service.client.post("/migrations/switch").status_code == 200
    indices = service.get("/stats").json()["indices"]
    assert {kind: each["model_name"] for kind, each in indices.items()} == {
        "transcript": OLD,
        "frame": OLD,
        "clip": tiny,
    }
    assert results(service, TEXTS[0]) == before
    assert results(service, TEXTS[0], "clip")[0][:2] == (1, 0)
    moments = service.post("/search/moments", {"query": TEXTS[0]})
    assert moments.status_code == 200, moments.text
    listed = [each["id"] for each in service.get("/v1/models").json()["data"]]
    assert sorted(listed) == sorted([OLD, tiny])


def test_own_vectors_are_refused_until_the_end(service: WholeService, tiny: str) -> None:
    service.embed(1, segments())
    service.post("/migrations", {"model": tiny, "embedding_types": ["frame"]})
    wait_for(service, "switched")
    body = {
        "media_item_id": 2,
        "embedding_type": "frame",
        "segments": [{"id": 1, "embedding": [1.0] + 31 * [0.0]}],
    }
    answer = service.post("/embed", body)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert f"a migration of the frame index to {tiny} is under way" in answer.json()["detail"]
    assert wait_for(service, "switched")["reason"] is None
    service.client.delete("/migrations")
    assert service.post("/embed", body).status_code == 200


def test_a_restart_goes_on_with_the_new_model_whatever_the_settings_say(
    tmp_path: Path, tiny: str, caplog: pytest.LogCaptureFixture
) -> None:
    with whole_service(tmp_path / "index") as service:
        service.embed(1, segments())
        service.post("/migrations", {"model": tiny})
        wait_for(service, "switched")
        found = results(service, TEXTS[0])
    with whole_service(tmp_path / "index") as again:
        assert "migrated from all-MiniLM-L6-v2 to" in caplog.text
        assert "Set EMBEDDING_MODEL" in caplog.text
        assert results(again, TEXTS[0]) == found
        assert again.get("/stats").json()["model_name"] == tiny
        assert again.get("/migrations").json()["migration"]["state"] == "switched"
    caplog.clear()
    with whole_service(tmp_path / "index", embedding_model=tiny) as configured:
        assert "Set EMBEDDING_MODEL" not in caplog.text
        assert results(configured, TEXTS[0]) == found
        assert configured.client.post("/migrations/rollback").status_code == 200
        assert configured.get("/stats").json()["model_name"] == OLD


def test_a_model_that_isn_t_there_is_no_migration(service: WholeService) -> None:
    answer = service.post("/migrations", {"model": "/no/such/model"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert service.get("/migrations").json()["migration"] is None
    answer = service.post("/migrations", {"model": OLD})
    assert answer.status_code == 422
    assert "has the vectors of all-MiniLM-L6-v2 already" in answer.json()["detail"]


def test_a_model_that_nobody_uses_any_more_is_dropped(
    service: WholeService, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = service.encoder.replica
    monkeypatch.setattr(encoder._models, "_idle_s", 0.05)
    service.embed(1, segments())
    service.post("/migrations", {"model": tiny})
    wait_for(service, "switched")
    service.search("RSI")
    service.client.delete("/migrations")
    deadline = time.monotonic() + 60
    while [each.name for each in encoder._loaded.identities] != [tiny]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    service.search("RSI")
    service.embed(2, segments())
