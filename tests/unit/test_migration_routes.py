"""The routes that change the model."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from migration_samples import NEW, NEWS
from storage_samples import FRAME, MODELS, TRANSCRIPT
from test_ingress import STATS, RecordingBackend, assert_problem

from deployments.core.errors import Conflict, ModelNotFound
from deployments.core.segments import EmbeddingType
from deployments.core.settings import Settings
from deployments.core.storage.migration_record import (
    Act,
    MigrationRecord,
    MigrationRequest,
    MigrationStatus,
    Overlap,
    Phase,
)
from deployments.rest.application import create_app

ALL = tuple(EmbeddingType)
RUNNING = MigrationStatus(
    MigrationRecord(Phase.RUNNING, True, 1763672400.2), MODELS, {**MODELS, FRAME: NEW}, 40, 100
)
SWITCHED = MigrationStatus(
    MigrationRecord(
        Phase.SWITCHED,
        True,
        1763672400.2,
        1763672460.9,
        overlap={TRANSCRIPT: Overlap(100, 0.75), FRAME: Overlap(3, 1.0)},
    ),
    MODELS,
    NEWS,
    100,
    100,
)


class MigratingBackend(RecordingBackend):
    """Tells of a migration."""

    def __init__(self) -> None:
        super().__init__()
        self.status: MigrationStatus | None = RUNNING

    async def migrate(self, request: MigrationRequest) -> MigrationStatus | None:
        self._take(request)
        return self.status


@pytest.fixture
def backend() -> MigratingBackend:
    return MigratingBackend()


@pytest.fixture
def client(backend: MigratingBackend) -> Iterator[TestClient]:
    with TestClient(create_app(backend, Settings()), "http://localhost") as client:
        yield client


def test_a_start_names_the_model_and_by_default_all_indices(
    client: TestClient, backend: MigratingBackend
) -> None:
    response = client.post("/migrations", json={"model": " some/model "})
    assert response.status_code == 200, response.text
    assert backend.asked == [MigrationRequest(Act.START, "some/model", ALL, True)]
    body = response.json()
    assert body.pop("timestamp")
    assert body == {
        "migration": {
            "state": "running",
            "indices": {
                "frame": {
                    "from_model": "sample-model",
                    "to_model": "new-model",
                    "overlap_at_10": None,
                    "queries": 0,
                }
            },
            "rows_done": 40,
            "rows": 100,
            "switch_when_ready": True,
            "started": "2025-11-20T21:00:00Z",
            "switched": None,
            "reason": None,
        }
    }


def test_a_start_may_name_indices_and_leave_the_switch_to_someone(
    client: TestClient, backend: MigratingBackend
) -> None:
    body = {"model": "m", "embedding_types": ["clip", "frame"], "switch_when_ready": False}
    assert client.post("/migrations", json=body).status_code == 200
    assert backend.asked == [
        MigrationRequest(Act.START, "m", (EmbeddingType.FRAME, EmbeddingType.CLIP), False)
    ]


@pytest.mark.parametrize(
    "body",
    [{}, {"model": " "}, {"model": "m", "embedding_types": []}, {"model": "m", "types": ["clip"]}],
)
def test_what_is_no_start_is_refused(
    client: TestClient, backend: MigratingBackend, body: dict[str, object]
) -> None:
    assert_problem(client.post("/migrations", json=body), 422, "invalid_input")
    assert backend.asked == []


@pytest.mark.parametrize(
    ("method", "path", "act"),
    [
        ("GET", "/migrations", Act.STATUS),
        ("POST", "/migrations/switch", Act.SWITCH),
        ("POST", "/migrations/rollback", Act.ROLL_BACK),
        ("DELETE", "/migrations", Act.END),
    ],
)
def test_each_route_asks_for_one_thing(
    client: TestClient, backend: MigratingBackend, method: str, path: str, act: Act
) -> None:
    backend.status = SWITCHED
    response = client.request(method, path)
    assert response.status_code == 200, response.text
    assert backend.asked == [MigrationRequest(act)]
    migration = response.json()["migration"]
    assert migration["state"] == "switched"
    assert migration["switched"] == "2025-11-20T21:01:00Z"
    assert migration["indices"]["transcript"] == {
        "from_model": "sample-model",
        "to_model": "new-model",
        "overlap_at_10": 0.75,
        "queries": 100,
    }
    assert migration["indices"]["clip"]["overlap_at_10"] is None


def test_without_a_migration_the_answer_is_null(
    client: TestClient, backend: MigratingBackend
) -> None:
    backend.status = None
    assert client.get("/migrations").json()["migration"] is None


def test_what_can_t_be_is_a_problem(client: TestClient, backend: MigratingBackend) -> None:
    backend.error = Conflict("the migration is running, not ready")
    assert_problem(client.post("/migrations/switch"), 409, "conflict", "not ready")
    backend.error = ModelNotFound("nowhere")
    assert_problem(client.post("/migrations", json={"model": "m"}), 422, "invalid_input")


def test_stats_tell_of_it(client: TestClient, backend: MigratingBackend) -> None:
    assert client.get("/stats").json()["migration"] is None
    backend.counts = replace(STATS, migration=RUNNING)
    migration = client.get("/stats").json()["migration"]
    assert (migration["state"], migration["rows_done"], migration["rows"]) == ("running", 40, 100)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/migrations"),
        ("POST", "/migrations/switch"),
        ("POST", "/migrations/rollback"),
        ("DELETE", "/migrations"),
    ],
)
def test_a_read_only_key_may_look_only(
    backend: MigratingBackend, method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDINGS_API_KEY", "w" * 32)
    monkeypatch.setenv("EMBEDDINGS_READ_ONLY_API_KEY", "r" * 32)
    with TestClient(create_app(backend, Settings()), "http://localhost") as client:
        headers = {"X-API-Key": "r" * 32}
        assert client.get("/migrations", headers=headers).status_code == 200
        response = client.request(method, path, headers=headers, json={"model": "m"})
        assert_problem(response, 403, "forbidden")
        headers = {"X-API-Key": "w" * 32}
        response = client.request(method, path, headers=headers, json={"model": "m"})
        assert response.status_code == 200
