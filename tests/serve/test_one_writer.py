"""One folder has one writer: a second one waits and says so."""

import time

from deployments import serve_process
from deployments.core.storage.folder_lock import FolderLock
from tests.serve.service import Service


def test_a_folder_in_use_is_waited_for(tmp_path):
    service = Service(tmp_path)
    service.index_dir.mkdir()
    lock = FolderLock(service.index_dir)
    assert lock.try_acquire()
    before = sorted(path.name for path in service.index_dir.iterdir())
    child = service.begin()
    try:
        deadline = time.monotonic() + 120
        while "in use by" not in (reason := reason_of(service)):
            assert time.monotonic() < deadline, reason
            time.sleep(0.2)
        assert service.get("/health/live").status_code == 200
        refused = service.post(
            "/embed",
            {"media_item_id": 1, "embedding_type": "clip", "segments": [{"id": 1, "text": "x"}]},
        )
        assert refused.status_code == 503
        assert refused.json()["code"] == "folder_locked"
        assert int(refused.headers["Retry-After"]) > 0
        assert sorted(path.name for path in service.index_dir.iterdir()) == before
        lock.release()
        serve_process.wait_until_ready(service.url, child, 30)
        assert service.embed(1, [{"id": 1, "text": "x"}])["embeddings_created"] == 1
    finally:
        service.stop()
        lock.release()


def reason_of(service):
    try:
        return service.get("/health").json()["reason"] or ""
    except (OSError, ValueError, KeyError):
        return "no answer"
