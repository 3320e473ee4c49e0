"""The same answers before and after each kind of restart, to the last digit of every score."""

import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.crash.http_api import Api
from tests.crash.service import MortalService, wait_for
from tests.crash.texts import sentences

PER_REQUEST = 200
WRITERS = 3
TOP_K = 10
TIMEOUT_S = 120.0

Results = list[list[dict[str, Any]]]


def check(segments: int, queries: int) -> bool:
    """Store segments, ask, restart, ask again; whether all answers were the same."""
    folder = Path(tempfile.mkdtemp(prefix="restart-"))
    service = MortalService(folder, {"embeddings_timeout_s": TIMEOUT_S})
    same = True
    try:
        service.start()
        began = time.monotonic()
        store(service.port, segments)
        print(f"Stored {segments:,} segments in {time.monotonic() - began:.0f} s", flush=True)
        questions = sentences(queries, "questions")
        before = ask(service.port, questions)
        for name, restart in (
            ("SIGKILL of the Index", kill_index),
            ("SIGKILL of the whole cluster", kill_everything),
            ("an orderly stop", stop),
        ):
            began = time.monotonic()
            restart(service)
            seconds = time.monotonic() - began
            after = ask(service.port, questions)
            wrong = sum(old != new for old, new in zip(before, after, strict=True))
            same = same and not wrong
            print(
                f"{name}: back after {seconds:.1f} s; {queries - wrong:,} of {queries:,} answers "
                f"of {TOP_K} results are the same, scores included",
                flush=True,
            )
    finally:
        service.stop()
        service.remove_ray_files()
        shutil.rmtree(folder)
    return same


def store(port: int, segments: int) -> None:
    """Store that many different sentences."""
    texts = sentences(segments, 0)

    def put(start: int) -> None:
        part = texts[start : start + PER_REQUEST]
        body = {
            "media_item_id": start,
            "embedding_type": "transcript",
            "segments": [{"id": i, "text": text, "start_time": i} for i, text in enumerate(part)],
        }
        answer = Api(port, TIMEOUT_S).request("POST", "/embed", body)
        assert answer.ok, answer

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(put, range(0, segments, PER_REQUEST)))


def ask(port: int, questions: list[str]) -> Results:
    """The results of each question. One at a time: so each is encoded by itself."""
    api = Api(port, TIMEOUT_S)
    found = []
    for question in questions:
        answer = api.search(question, "transcript", TOP_K)
        assert answer.ok, answer
        assert len(answer.body["results"]) == TOP_K, answer
        found.append(answer.body["results"])
    return found


def kill_index(service: MortalService) -> None:
    """The Index alone; Serve starts it again."""
    pid = service.kill_index()
    assert pid is not None
    api = Api(service.port, TIMEOUT_S)
    assert wait_for(lambda: api.request("GET", "/stats").ok, TIMEOUT_S)
    assert service.control.index_pid() != pid


def kill_everything(service: MortalService) -> None:
    """Every process at once, then a new start over the same folder."""
    assert service.kill_everything() == []
    service.start()


def stop(service: MortalService) -> None:
    """What Ctrl-C does, and a new start."""
    service.stop()
    service.start()
