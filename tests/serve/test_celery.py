"""A real Celery worker runs the task in real chains, against the real service."""

import os
import subprocess
import sys
import time

import pytest

from tests.serve.service import ROOT

SEGMENTS = [
    {"id": 1, "text": "RSI indicator measures momentum", "start_time": 0, "end_time": 3},
    {"id": 2, "text": "When RSI is above 70 it's overbought", "start_time": 3, "end_time": 6},
]


@pytest.fixture(scope="module")
def tasks(service, tmp_path_factory):
    """The application's module, while a worker runs."""
    folder = tmp_path_factory.mktemp("celery")
    ours = {
        "CELERY_TEST_FOLDER": str(folder),
        "EMBEDDINGS_SERVICE_URL": service.url,
        "PYTHONPATH": str(ROOT),
    }
    command = ["-m", "celery", "-A", "tests.serve.celery_app", "worker", "--pool", "solo"]
    command += ["--loglevel", "INFO", "--without-gossip", "--without-mingle"]
    log = folder / "worker.log"
    with log.open("w") as output:
        worker = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, **ours},
            stdout=output,
            stderr=output,
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELERY_TEST_FOLDER", str(folder))
        from tests.serve import celery_app
    try:
        deadline = time.monotonic() + 120
        while " ready." not in log.read_text():
            assert worker.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        assert "app.tasks.generate_embeddings" in log.read_text()
        yield celery_app
    finally:
        worker.terminate()
        worker.wait(60)


def run(*steps):
    from celery import chain

    return chain(*steps).apply_async().get(timeout=120)


@pytest.fixture
def embed(tasks):
    from deployments.client.celery_tasks import generate_embeddings

    return generate_embeddings


def success(item):
    return {"status": "success", "media_item_id": item, "embeddings_created": 2}


def test_called_by_itself_it_does_as_the_old_task_did(tasks, service):
    sent = tasks.app.send_task("app.tasks.generate_embeddings", ["celery-1", SEGMENTS])
    assert sent.get(timeout=120) == success("celery-1")
    found = service.search("overbought", filter={"media_item_id": "celery-1"})
    assert [result["metadata"]["segment_id"] for result in found] == [2, 1]


@pytest.mark.parametrize("hand_on", ["dict", "concepts", "text"])
def test_in_a_chain_with_arguments_of_its_own(tasks, embed, hand_on):
    item = f"celery-2-{hand_on}"
    answer = run(
        tasks.extract_concepts.s(item, SEGMENTS, hand_on),
        embed.s(item, SEGMENTS),
        tasks.generate_strategies.s(),
    )
    assert answer == {"strategies": 1, "embedded": success(item)}


def test_in_a_chain_whose_step_before_hands_over_everything(tasks, embed):
    before, after = tasks.extract_concepts.s("celery-3", SEGMENTS), tasks.generate_strategies.s()
    assert run(before, embed.s(), after)["embedded"] == success("celery-3")


def test_in_a_chain_whose_step_before_hands_over_segments(tasks, embed):
    before = tasks.extract_concepts.s("x", SEGMENTS, "segments")
    answer = run(before, embed.s(media_item_id="celery-4"), tasks.generate_strategies.s())
    assert answer["embedded"] == success("celery-4")


def test_more_segments_than_a_request_may_have(tasks, embed, service):
    segments = [{"id": i, "text": f"part {i % 7}", "start_time": i} for i in range(2100)]
    answer = embed.delay("celery-5", segments).get(timeout=240)
    assert answer == success("celery-5") | {"embeddings_created": 2100}
    page = service.get("/media?limit=1000").json()["media"]
    (counts,) = [item["segments"] for item in page if item["media_item_id"] == "celery-5"]
    assert counts["transcript"] == 2100


def test_a_failure_is_handed_on_and_the_chain_ends_well(tasks, embed):
    wrong = [{"id": 1, "text": " "}]
    answer = run(
        tasks.extract_concepts.s("celery-6", wrong), embed.s(), tasks.generate_strategies.s()
    )
    assert answer["embedded"]["status"] == "failed"
    assert "must contain more than white space" in answer["embedded"]["error"]
