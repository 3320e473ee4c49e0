"""A real service changes its model under load, while its Index is killed, and returns."""

import signal
import threading
import time

import numpy as np
import psutil
import pytest
import requests

from deployments.core.encoding.text_encoder import load_text_encoder
from tests.fakes import write_tiny_model
from tests.serve.service import Service, replica_pids

OLD = "all-MiniLM-L6-v2"
SEGMENTS = 600
PER_MEDIA = 100
QUERIES = ["rsi above seventy", "moving average", "segment 123 of the market"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(write_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("migration")) as running:
        for start in range(0, SEGMENTS, PER_MEDIA):
            running.embed(start, [segment(start + i) for i in range(PER_MEDIA)])
        yield running


def segment(number):
    words = ("rsi", "moving average", "support", "volume", "the market")
    return {"id": number, "text": f"segment {number} of {words[number % len(words)]}"}


class Load:
    """Writes and searches without pause, and keeps what failed."""

    def __init__(self, service):
        self.service = service
        self.failures = []
        self.written = []
        self.searches = 0
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._write, self._search)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def go_on(self):
        """Wait for some more of both."""
        written, searches = len(self.written), self.searches
        while len(self.written) < written + 2 or self.searches < searches + 4:
            time.sleep(0.05)

    def _write(self):
        number = SEGMENTS
        while not self._ended.is_set():
            segments = [segment(number), segment(number + 1)]
            body = {"media_item_id": "load", "embedding_type": "transcript", "segments": segments}
            self._ask("/embed", body)
            self.written += segments
            number += 2

    def _search(self):
        while not self._ended.is_set():
            query = QUERIES[self.searches % len(QUERIES)]
            answer = self._ask("/search", {"query": query, "top_k": 10})
            if answer is not None and len(answer["results"]) != 10:
                self.failures.append(answer)
            self.searches += 1

    def _ask(self, path, body):
        response = requests.post(self.service.url + path, json=body, timeout=120)
        if response.status_code == 200:
            return response.json()
        self.failures.append(response.text)
        return None


def migration_of(service):
    return service.get("/migrations").json()["migration"]


def wait_until(service, good):
    deadline = time.monotonic() + 300
    while not good(seen := migration_of(service)):
        assert time.monotonic() < deadline, seen
        assert seen["state"] != "failed", seen
        time.sleep(0.1)
    return seen


def expected(model, query, segments):
    """The best ten by a numpy ranking, with their similarities."""
    encoder = load_text_encoder(model)
    texts = [each["text"] for each in segments]
    stored = np.concatenate(
        [
            encoder.encode(encoder.tokenize(texts[start : start + 64], "document"))
            for start in range(0, len(texts), 64)
        ]
    )
    cosines = stored @ encoder.encode(encoder.tokenize([query], "query"))[0]
    best = np.argsort(-cosines, kind="stable")[:10]
    return [float(cosines[row]) for row in best]


@pytest.mark.timeout(600)  # 60 s where nothing else runs
def test_the_model_changes_under_load_although_the_index_is_killed(service, tiny):
    with Load(service) as load:
        load.go_on()
        answer = service.post("/migrations", {"model": tiny, "switch_when_ready": False})
        assert answer.status_code == 200, answer.text
        wait_until(service, lambda seen: seen["rows_done"] > 0)
        (index,) = replica_pids(service.pid, "Index")
        psutil.Process(index).send_signal(signal.SIGKILL)
        load.go_on()
        ready = wait_until(service, lambda seen: seen["state"] == "ready")
        assert replica_pids(service.pid, "Index") != {index}
        overlap = ready["indices"]["transcript"]
        assert (overlap["from_model"], overlap["to_model"]) == (OLD, tiny)
        assert 0 < overlap["overlap_at_10"] < 1
        assert overlap["queries"] == 100
        assert service.get("/stats").json()["model_name"] == OLD
        for act, model in (("switch", tiny), ("rollback", OLD), ("switch", tiny)):
            answer = service.post(f"/migrations/{act}", {})
            assert answer.status_code == 200, answer.text
            load.go_on()
            assert service.get("/stats").json()["model_name"] == model
    assert load.failures == []
    stored = [segment(number) for number in range(SEGMENTS)] + load.written
    assert service.get("/stats").json()["total_vectors"] == len(stored)
    for query in QUERIES:
        found = [1 - each["distance"] for each in service.search(query, top_k=10)]
        assert found == pytest.approx(expected(tiny, query, stored), abs=1e-4)
    assert service.post("/migrations/rollback", {}).status_code == 200
    for query in QUERIES:
        found = [1 - each["distance"] for each in service.search(query, top_k=10)]
        assert found == pytest.approx(expected(OLD, query, stored), abs=1e-4)
    assert service.delete("/migrations").json()["migration"] is None
    assert service.get("/health").status_code == 200
