"""A disk that refuses, and clients that hang up: over HTTP, against the real service."""

import json
import random
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.serve.service import replica_pids

KIND = "frame"
WORDS = ["gold", "banana", "volcano", "violin", "glacier"]


def segments_of(name):
    note = "noted at length, " * 200
    return [
        {"id": i, "text": f"{name} speaks of a {word}", "note": note}
        for i, word in enumerate(WORDS)
    ]


def request_of(name):
    return {"media_item_id": name, "embedding_type": KIND, "segments": segments_of(name)}


def found_of(service, name):
    """The segment ids of a media item that a search finds."""
    return sorted(
        result["metadata"]["segment_id"]
        for result in service.search(segments_of(name)[0]["text"], KIND, top_k=1000)
        if result["metadata"]["media_item_id"] == name
    )


@contextmanager
def no_room(pid, size):
    """Files of a process can't grow beyond `size` bytes; whoever else uses the disk is spared."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@pytest.fixture
def clean(service):
    """The names of media items that the test stores; they are gone after it."""
    names = []
    yield names
    for name in names:
        service.delete(f"/media/{name}")


def test_a_disk_that_takes_no_more(service, clean):
    """Writes are refused and leave nothing, searches go on, and all without a restart."""
    service.embed("kept", segments_of("kept"), KIND)
    clean.append("kept")
    (pid,) = replica_pids(service.pid, "Index")
    stored, refused = [], []
    # Less than the write-ahead log may have already: SQLite begins it anew within its size.
    with no_room(pid, 200_000):
        for number in range(100):
            name = f"full-{number}"
            clean.append(name)
            response = service.post("/embed", request_of(name))
            if response.status_code == 200:
                assert response.json()["embeddings_created"] == 5
                stored.append(name)
                continue
            assert response.status_code in (503, 507)
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["code"] in ("store_unwritable", "store_full")
            assert int(response.headers["Retry-After"]) > 0
            refused.append(name)
            if len(refused) == 5:
                break
        assert len(refused) == 5
        other = request_of("other")["segments"][:2]
        replaced = service.post("/embed", request_of("kept") | {"segments": other, "replace": True})
        assert replaced.status_code in (503, 507)
        assert service.delete("/media/kept").status_code in (503, 507)
        assert found_of(service, "kept") == [0, 1, 2, 3, 4]
        for name in refused:
            assert found_of(service, name) == []
        for name in stored[-3:]:
            assert found_of(service, name) == [0, 1, 2, 3, 4]
        assert service.get("/health").status_code == 200
    for name in refused:
        assert service.embed(name, segments_of(name), KIND)["changed"] == 5
        assert found_of(service, name) == [0, 1, 2, 3, 4]
    assert service.delete("/media/kept").json()["embeddings_deleted"] == 5
    assert replica_pids(service.pid, "Index") == {pid}
    print(f"{len(stored)} stored before {len(refused)} were refused")


def hang_up(service, name, chance, longest_s):
    """Send a request, or a part of it, and close the connection; returns whether it was whole."""
    body = json.dumps(request_of(name)).encode()
    head = (
        "POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    message = head + body
    whole = chance.random() < 0.7
    sent = len(message) if whole else chance.randrange(1, len(message))
    port = int(service.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(message[:sent])
        time.sleep(chance.choice((0, chance.uniform(0, longest_s))))
        if chance.random() < 0.5:  # a reset instead of an orderly end
            linger = (1).to_bytes(4, "little") + bytes(4)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return whole


def test_clients_that_hang_up_leave_all_of_their_request_or_nothing(service, clean):
    names = [f"hung-up-{number}" for number in range(60)]
    clean += names
    began = time.monotonic()
    service.embed(names[0], segments_of(names[0]), KIND)
    longest_s = 4 * (time.monotonic() - began)  # several write at the same time
    assert service.delete(f"/media/{names[0]}").json()["embeddings_deleted"] == 5

    def try_to(name):
        whole = hang_up(service, name, random.Random(name), longest_s)
        return whole, service.embed(name, segments_of(name), KIND)["changed"]

    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(try_to, names))
    assert {changed for _, changed in outcomes} <= {0, 5}
    assert all(changed == 5 for whole, changed in outcomes if not whole)
    for name in names[::10]:
        assert found_of(service, name) == [0, 1, 2, 3, 4]
    for name in names:
        assert service.delete(f"/media/{name}").json()["embeddings_deleted"] == 5
    stored = sum(changed == 0 for _, changed in outcomes)
    print(f"{stored} of {sum(whole for whole, _ in outcomes)} whole requests were stored")
    assert stored > 0
