"""Lists of what is stored: of an index against plain Python, and over HTTP."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_damage import flip_text
from random_segments import MEDIA, Draw, RandomContents
from search_reference import Stored
from storage_samples import FRAME, MODEL, TRANSCRIPT, segment, store_segments
from test_ingress import RecordingBackend, assert_problem

from deployments.core.api.list_results import (
    media_after,
    media_json,
    segments_after,
    segments_json,
)
from deployments.core.api.media_schemas import MediaResponse, SegmentsResponse
from deployments.core.errors import NotFound, StoreDamaged
from deployments.core.folders.salvaged_index import SalvagedIndex
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.search.media_lists import MediaList, MediaPage, SegmentList, SegmentPage
from deployments.core.segments import DeleteMedia, EmbeddingType, Id, Segment
from deployments.core.settings import Settings
from deployments.core.storage.time_order import time_keys, time_keys_after
from deployments.rest.application import create_app

Index = SegmentIndex | SalvagedIndex


def media_pages(index: Index, limit: int, kind: EmbeddingType | None) -> list[Any]:
    pages, after = [], None
    while True:
        page = index.reads.media(MediaList(limit, kind, after))
        pages.append([(each.id, each.segments) for each in page.items])
        if page.next is None:
            return pages
        after = page.next


def segment_pages(
    index: Index, media: Id, limit: int, kind: EmbeddingType | None
) -> list[list[tuple[EmbeddingType, Segment]]]:
    pages, after = [], None
    while True:
        page = index.reads.segments(SegmentList(media, limit, kind, after))
        pages.append([(each.embedding_type, each.segment) for each in page.segments])
        if page.next is None:
            return pages
        after = page.next


def in_pages(values: list[Any], limit: int) -> list[list[Any]]:
    return [values[start : start + limit] for start in range(0, len(values), limit)] or [[]]


def check(index: Index, everything: dict[EmbeddingType, list[Stored]], draw: Draw) -> None:
    kinds = list(EmbeddingType)
    for kind in (None, *kinds):
        limit = draw.one((1, 2, 3, 100))
        wanted = kinds if kind is None else [kind]
        keys = {str(each.media_item_id) for one in wanted for each in everything[one]}
        expected = []
        for key in sorted(keys):
            of_media = {
                one: [each for each in everything[one] if str(each.media_item_id) == key]
                for one in kinds
            }
            newest = max((each for some in of_media.values() for each in some), key=_number)
            expected.append(
                (newest.media_item_id, {one: len(some) for one, some in of_media.items()})
            )
        assert media_pages(index, limit, kind) == in_pages(expected, limit)
    for media in MEDIA:
        mine = [
            (one, each)
            for one in kinds
            for each in everything[one]
            if str(each.media_item_id) == str(media)
        ]
        kind = draw.one((None, *kinds))
        limit = draw.one((1, 4, 100))
        if not mine:
            with pytest.raises(NotFound, match="there is no media item"):
                segment_pages(index, media, limit, kind)
            continue
        listed = sorted((each for each in mine if kind in (None, each[0])), key=_place)
        found = [(one, each.segment) for one, each in listed]
        assert segment_pages(index, media, limit, kind) == in_pages(found, limit)
        times = [_times(each) for _, each in listed if any(t is not None for t in _times(each))]
        span = (min((first for first, _ in times), default=None),)
        span += (max((last for _, last in times), default=None),)
        assert index.reads.segments(SegmentList(media, 1, kind)).span == span


def _number(stored: Stored) -> int:
    return stored.number


def _times(stored: Stored) -> tuple[float | None, float | None]:
    start, end = stored.segment.start_time, stored.segment.end_time
    return (end if start is None else start, start if end is None else end)


def _place(each: tuple[EmbeddingType, Stored]) -> tuple[bool, float, int]:
    times = [each[1].segment.start_time, each[1].segment.end_time]
    time = next((time for time in times if time is not None), None)
    return (time is None, time or 0, each[1].number)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1))
def test_lists_have_all_that_is_stored_in_order(memory_folder: Path, seed: int) -> None:
    draw = Draw(seed)
    with tempfile.TemporaryDirectory(dir=memory_folder) as folder:
        with SegmentIndex.open(folder, MODEL) as index:
            contents = {kind: RandomContents(index, draw, kind) for kind in EmbeddingType}
            check(index, {kind: [] for kind in EmbeddingType}, draw)
            for _ in range(8):
                one = contents[draw.one(list(EmbeddingType))]
                # Numbers of rows are given to all types in turn.
                one.numbers = max(each.numbers for each in contents.values())
                one.write(draw.one((1, 4)))
                check(index, {kind: each.everything for kind, each in contents.items()}, draw)
        with SalvagedIndex.open(Path(folder), MODEL) as salvaged:
            check(salvaged, {kind: each.everything for kind, each in contents.items()}, draw)


def test_pages_fit_together_while_others_write(index: SegmentIndex) -> None:
    for media in "bdf":
        store_segments(index, media, *(segment(i) for i in range(3)))
    first = index.reads.media(MediaList(2))
    assert [each.id for each in first.items] == ["b", "d"]
    for media in "ae":
        store_segments(index, media, segment(1))
    index.apply([DeleteMedia("d")])
    second = index.reads.media(MediaList(2, after=first.next))
    assert [each.id for each in second.items] == ["e", "f"]
    assert second.next is None


def test_a_page_reads_no_more_keys_than_it_needs(index: SegmentIndex) -> None:
    times = [None, 3, 0.5, 3.0, -1, None, 2**53 + 1, 7]
    store_segments(index, 1, *(Segment(i, f"text {i}", None, time) for i, time in enumerate(times)))
    store_segments(index, 2, segment(1))
    with index._store.reading() as reader:
        keys = sorted(time_keys(reader, TRANSCRIPT, "1"))
        assert [each[2] for each in keys] == [5, 3, 2, 4, 8, 7, 1, 6]
        for limit in (1, 3, 100):
            assert time_keys_after(reader, TRANSCRIPT, "1", None, limit) == keys[:limit]
            for place, key in enumerate(keys, 1):
                following = time_keys_after(reader, TRANSCRIPT, "1", key, limit)
                assert following == keys[place : place + limit]


def test_a_damaged_segment_is_not_listed(closed: Path) -> None:
    flip_text(closed / "store.sqlite3", b"MACD")
    with SegmentIndex.open(closed, MODEL) as index:
        with pytest.raises(StoreDamaged, match="is not what was written"):
            index.reads.segments(SegmentList(1, 10))
        assert index.stats().damage is not None


class ListingBackend(RecordingBackend):
    """Answers lists from a real index."""

    def __init__(self, index: SegmentIndex) -> None:
        super().__init__()
        self._reads = index.reads

    async def media(self, wanted: MediaList) -> bytes:
        return media_json(wanted, self._reads.media(wanted))

    async def segments(self, wanted: SegmentList) -> bytes:
        return segments_json(wanted, self._reads.segments(wanted))


@pytest.fixture
def client(index: SegmentIndex):
    store_segments(index, 2, Segment(1, "one", 3, 4, {"ticker": "SPY"}), Segment("b", "two", 0, 1))
    store_segments(index, "a/b c", segment(1))
    store_segments(index, "x/segments", segment(1))
    store_segments(index, 2, Segment(7, "frame", 3.5), kind=FRAME)
    with TestClient(create_app(ListingBackend(index), Settings()), "http://localhost") as client:
        yield client


def test_media_over_http(client):
    body = client.get("/media", params={"limit": 2}).json()
    MediaResponse.model_validate(body)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["timestamp"])
    assert body["media"] == [
        {"media_item_id": 2, "segments": {"transcript": 2, "frame": 1, "clip": 0}},
        {"media_item_id": "a/b c", "segments": {"transcript": 1, "frame": 0, "clip": 0}},
    ]
    body = client.get("/media", params={"limit": 2, "cursor": body["next_cursor"]}).json()
    assert [each["media_item_id"] for each in body["media"]] == ["x/segments"]
    assert body["next_cursor"] is None
    frames = client.get("/media", params={"embedding_type": "frame"}).json()["media"]
    assert [each["media_item_id"] for each in frames] == [2]
    assert client.get("/media", params={"embedding_type": "clip"}).json()["media"] == []


def test_segments_over_http(client):
    body = client.get("/media/2/segments", params={"limit": 2}).json()
    SegmentsResponse.model_validate(body)
    assert [each["embedding_type"] for each in body["segments"]] == ["transcript", "transcript"]
    assert body["segments"][1]["metadata"] == {
        "ticker": "SPY",
        "media_item_id": 2,
        "segment_id": 1,
        "start_time": 3,
        "end_time": 4,
        "text": "one",
    }
    rest = client.get("/media/2/segments", params={"cursor": body["next_cursor"]}).json()
    (frame,) = rest["segments"]
    assert (frame["embedding_type"], frame["metadata"]["text"]) == ("frame", "frame")
    assert rest["next_cursor"] is None


@pytest.mark.parametrize("path", ["a/b%20c", "a%2Fb%20c", "x/segments"])
def test_an_id_may_have_slashes(client, path):
    (found,) = client.get(f"/media/{path}/segments").json()["segments"]
    assert found["metadata"]["text"] == "text of 1"


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/media/nobody/segments", 404, "there is no media item 'nobody'"),
        ("/media/3/segments", 404, "there is no media item 3"),
        ("/media//segments", 422, "must have 1 to 512 characters"),
        ("/media?limit=0", 422, "query.limit"),
        ("/media?limit=1001", 422, "query.limit"),
        ("/media?embedding_type=video", 422, "query.embedding_type"),
        ("/media?cursor=x", 422, "cursor is none that this service gave"),
        ("/media/2/segments?cursor=x", 422, "cursor is none that this service gave"),
    ],
)
def test_what_is_refused(client, path, status, message):
    code = "not_found" if status == 404 else "invalid_input"
    assert_problem(client.get(path), status, code, message)


def test_a_cursor_is_of_one_list(client):
    of_media = client.get("/media?limit=1").json()["next_cursor"]
    of_segments = client.get("/media/2/segments?limit=1").json()["next_cursor"]
    for path, cursor in (
        ("/media/2/segments", of_media),
        ("/media", of_segments),
        ("/media?embedding_type=frame", of_media),
        ("/media/a/segments", of_segments),
    ):
        response = client.get(path, params={"cursor": cursor, **_query(path)})
        assert_problem(response, 422, "invalid_input", "cursor is of another request")


def _query(path: str) -> dict[str, str]:
    return {"embedding_type": "frame"} if "frame" in path else {}


@given(
    media=st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    | st.integers(-(2**63), 2**63 - 1),
    time=st.floats(-1e9, 1e9),
)
def test_cursors_hold_any_place(media: Id, time: float) -> None:
    item = MediaList(1)
    assert media_after(None, None) is None
    page = json.loads(media_json(item, MediaPage([], str(media))))
    assert media_after(page["next_cursor"], None) == str(media)
    wanted = SegmentList(media, 1, TRANSCRIPT)
    page = json.loads(segments_json(wanted, SegmentPage([], (False, time, 3), (time, None))))
    assert segments_after(page["next_cursor"], media, TRANSCRIPT) == (False, time, 3)
