"""The Index deployment's class, built as plain Python: no cluster."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from page_damage import flip_text

from deployments.core.api.filter_schema import parsed
from deployments.core.encoding.model_identity import read_identity
from deployments.core.encoding.model_source import find_model
from deployments.core.errors import DeadlineExceeded, StoreDamaged
from deployments.core.folders.backup import back_up
from deployments.core.folders.restore import restore
from deployments.core.search import filtered_rows
from deployments.core.segments import (
    DeleteMedia,
    EmbeddingType,
    Search,
    Segment,
    SegmentName,
    Upsert,
)
from deployments.core.settings import Settings
from deployments.index import SEARCH_THREADS, Index

CLIP = EmbeddingType.CLIP
MODEL = read_identity("all-MiniLM-L6-v2", find_model("all-MiniLM-L6-v2"))
OF_CLIPS = {CLIP: MODEL.fingerprint}
VECTORS = np.eye(3, MODEL.dimension, dtype=np.float32)
SEGMENTS = tuple(Segment(number, f"Text number {number}") for number in range(3))
UPSERT = Upsert(CLIP, 1, SEGMENTS, False, VECTORS, (0, 1, 2))


class Indices:
    """Starts Indices over one folder; what runs at the end is closed."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self.folder = folder
        self._opened = opened

    def start(self, **settings: object) -> Index:
        index = Index(Settings(faiss_index_dir=self.folder, **settings))  # type: ignore[arg-type]
        self._opened.callback(index.close)
        return index

    @property
    def store(self) -> Path:
        return self.folder / "store.sqlite3"


@pytest.fixture
def indices(folder: Path) -> Iterator[Indices]:
    with ExitStack() as opened:
        yield Indices(folder, opened)


async def until(condition: object, index: Index) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def texts(index: Index) -> list[str]:
    (answer,) = await index.search([Search(CLIP, 10)], VECTORS[:1], OF_CLIPS)
    assert isinstance(answer, bytes)
    return sorted(result["metadata"]["text"] for result in json.loads(answer)["results"])


async def test_a_damaged_store_answers_with_what_is_wrong_until_it_is_repaired(
    indices: Indices,
) -> None:
    index = indices.start()
    await index.upsert(UPSERT, MODEL.fingerprint)
    index.close()
    whole = indices.store.read_bytes()
    indices.store.write_bytes(whole[: len(whole) // 2])
    index = indices.start()
    index.check_health()  # a restart would change nothing
    messages = set()
    for call in (
        index.stats(),
        index.delete(DeleteMedia(1)),
        index.upsert(UPSERT, MODEL.fingerprint),
        index.search([Search(CLIP, 1)], VECTORS[:1], OF_CLIPS),
    ):
        with pytest.raises(StoreDamaged) as raised:
            await call
        messages.add(raised.value.detail)
    (message,) = messages
    assert "embeddings-service restore" in message
    assert indices.store.read_bytes() == whole[: len(whole) // 2]
    indices.store.write_bytes(whole)
    await until(lambda: index._folder.failure is None, index)
    assert await texts(index) == [segment.text for segment in SEGMENTS]
    await index.delete(DeleteMedia(1))
    assert await texts(index) == []


async def test_the_check_at_the_start_finds_what_opening_does_not(indices: Indices) -> None:
    index = indices.start(embeddings_check_interval_s=0)
    await index.upsert(UPSERT, MODEL.fingerprint)
    index.close()
    flip_text(indices.store, b"Text number 1")
    unchecked = indices.start(embeddings_check_interval_s=0)
    assert unchecked._folder._check is None
    assert (await unchecked.stats()).damage is None
    unchecked.close()
    index = indices.start()
    segments = index._folder.segments
    await until(lambda: segments.stats().damage is not None, index)
    damage = (await index.stats()).damage
    assert damage is not None
    assert (damage.rows, "Row 2 (clip" in damage.reason) == (1, True)
    with pytest.raises(StoreDamaged, match="Writes are refused"):
        await index.delete(DeleteMedia(1))


async def test_salvage(indices: Indices) -> None:
    index = indices.start()
    await index.upsert(UPSERT, MODEL.fingerprint)
    index.close()
    flip_text(indices.store, b"Text number 1")
    before = indices.store.read_bytes()
    index = indices.start(embeddings_salvage=True)
    assert await texts(index) == ["Text number 0", "Text number 2"]
    salvage = (await index.stats()).salvage
    assert salvage is not None
    assert (salvage.intact_rows, salvage.lost_rows) == (2, 1)
    with pytest.raises(StoreDamaged, match="EMBEDDINGS_SALVAGE"):
        await index.delete(DeleteMedia(1))
    index.close()
    assert indices.store.read_bytes() == before


async def test_a_restored_backup_is_opened_without_a_restart(
    indices: Indices, target: Path
) -> None:
    index = indices.start()
    await index.upsert(UPSERT, MODEL.fingerprint)
    back_up(indices.folder, target)
    index.close()
    indices.store.write_bytes(b"no store" * 1024)
    index = indices.start()
    with pytest.raises(StoreDamaged):
        await index.stats()
    restore(target, indices.folder, force=True)
    await until(lambda: index._folder.failure is None, index)
    assert await texts(index) == [segment.text for segment in SEGMENTS]


async def test_counts_and_checks_do_not_wait_behind_searches(indices: Indices) -> None:
    index = indices.start()
    await index.upsert(UPSERT, MODEL.fingerprint)
    held = threading.Event()
    searches = [index._in_search_thread(held.wait) for _ in range(2 * SEARCH_THREADS)]
    waiting = asyncio.gather(*searches)
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(30):
            assert (await index.stats()).vectors[CLIP] == len(SEGMENTS)
            await index.check([Search(CLIP, 1)], VECTORS[:1], OF_CLIPS)
        assert not waiting.done()
    finally:
        held.set()
    assert await waiting == [True] * len(searches)


async def test_a_filter_is_given_up_in_time_for_an_answer(
    indices: Indices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filtered_rows, "_STEPS_BETWEEN_LOOKS", 10)
    index = indices.start(embeddings_timeout_s=1e-9)
    await index.upsert(UPSERT, MODEL.fingerprint)
    filtered = Search(CLIP, 1, filter=parsed({"tags": "x"}))
    plain = Search(CLIP, 1)
    late, answer = await index.search([filtered, plain], VECTORS[:2], OF_CLIPS)
    assert isinstance(late, DeadlineExceeded)
    assert "took too long" in late.detail
    assert isinstance(answer, bytes)
    (result,) = json.loads(answer)["results"]
    assert result["metadata"]["text"] == "Text number 1"
    with pytest.raises(DeadlineExceeded, match="took too long"):
        await index.similar(SegmentName(CLIP, 1, 1), filtered)
    assert await texts(index) == [segment.text for segment in SEGMENTS]
