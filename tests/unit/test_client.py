"""The Python client, both kinds of it, against a transport that answers what a test says."""

import asyncio
import base64
import inspect
import json
import pickle
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from email.utils import formatdate
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deployments.client as client_package
from deployments.client import (
    AsyncClient,
    Client,
    EmbeddingsError,
    Forbidden,
    InvalidRequest,
    InvalidValue,
    NotFound,
    Overloaded,
    Refused,
    Retries,
    StoredMany,
    TimedOut,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    calls,
)
from deployments.client.batches import BATCH_CHARS, WINDOW, Batches
from deployments.core.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    ServiceError,
    StoreDamaged,
    StoreFull,
)
from deployments.core.errors import Forbidden as NotAllowed
from deployments.core.errors import NotFound as NoSuch
from deployments.core.errors import Overloaded as TooMuch
from deployments.core.errors import Unauthorized as NoKey
from deployments.rest.problems import error_response

Handler = Callable[[httpx.Request], httpx.Response]
NO_PAUSE = Retries(attempts=4, first_pause_s=0)

METADATA = {
    "media_item_id": 101,
    "segment_id": "a",
    "text": "RSI above 70",
    "start_time": 3.5,
    "end_time": None,
    "tags": ["rsi"],
}
RESULT = {"index": 0, "similarity": 0.9, "distance": 0.1, "metadata": METADATA}
EMBEDDED = {
    "status": "success",
    "media_item_id": 1,
    "embedding_type": "transcript",
    "embeddings_created": 1,
    "changed": 1,
    "removed": 0,
    "truncated": 0,
    "timestamp": "2025-11-20T21:00:00Z",
}


class Asked:
    """One of the two clients, asked in the same way."""

    def __init__(self, kind: str, handler: Handler, retries: Retries = NO_PAUSE) -> None:
        self._kind = kind
        self._handler = handler
        self._retries = retries

    def __call__(self, method: str, *arguments: Any, **options: Any) -> Any:
        transport = httpx.MockTransport(self._handler)
        if self._kind == "sync":
            with Client("http://service", transport=transport, retries=self._retries) as client:
                found = getattr(client, method)(*arguments, **options)
                return list(found) if inspect.isgenerator(found) else found
        return asyncio.run(self._ask(transport, method, arguments, options))

    async def _ask(self, transport: Any, method: str, arguments: Any, options: Any) -> Any:
        async with AsyncClient(
            "http://service", transport=transport, retries=self._retries
        ) as client:
            found = getattr(client, method)(*arguments, **options)
            if inspect.isasyncgen(found):
                return [each async for each in found]
            return await found


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Asked]:
    return lambda handler, **options: Asked(request.param, handler, **options)


def answers(*documents: Any) -> tuple[Handler, list[tuple[str, str, Any]]]:
    """A handler that gives these documents in turn, and what it was asked."""
    seen: list[tuple[str, str, Any]] = []
    rest = iter(documents)

    def handle(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        seen.append((request.method, str(request.url.raw_path, "ascii"), body))
        answer = next(rest)
        if isinstance(answer, Exception):
            raise type(answer)(str(answer))
        if isinstance(answer, httpx.Response):
            return copy_of(answer)
        return httpx.Response(200, json=answer)

    return handle, seen


def copy_of(answer: httpx.Response, **headers: str) -> httpx.Response:
    headers = {**answer.headers, **headers}
    return httpx.Response(answer.status_code, headers=headers, content=answer.content)


def at_once(answer: Any) -> Any:
    """The answer with no pause asked for, if it asks for one."""
    asks = isinstance(answer, httpx.Response) and "Retry-After" in answer.headers
    return copy_of(answer, **{"retry-after": "0"}) if asks else answer


def own(error: ServiceError, request_id: str = "r1") -> httpx.Response:
    """What the service answers for one of its errors."""
    response = error_response(error)
    headers = {**response.headers, "X-Request-ID": request_id}
    return httpx.Response(response.status_code, headers=headers, content=response.body)


def test_a_search_sends_what_was_asked_and_its_hits_are_values(ask) -> None:
    context = {"before": [METADATA], "after": []}
    result = RESULT | {"score": 1.5, "highlights": [[0, 3]], "context": context}
    result |= {"others": [RESULT], "explain": {"fusion": None}}
    handle, seen = answers({"results": [result], "exhausted": True, "next_cursor": "abc"})
    found = ask(handle)("search", "overbought", mode="hybrid", top_k=1, highlight=True, filter=None)
    body = {"query": "overbought", "mode": "hybrid", "top_k": 1, "highlight": True}
    assert seen == [("POST", "/search", body)]
    (hit,) = found
    assert (len(found), found[0], found.exhausted, found.next_cursor) == (1, hit, True, "abc")
    assert (hit.media_item_id, hit.segment_id, hit.text) == (101, "a", "RSI above 70")
    assert (hit.start_time, hit.end_time, hit.metadata) == (3.5, None, {"tags": ["rsi"]})
    assert (hit.similarity, hit.distance, hit.score) == (0.9, 0.1, 1.5)
    assert hit.highlights == ((0, 3),)
    assert [segment.segment_id for segment in hit.context.before] == ["a"]
    assert (hit.context.during, hit.context.after) == ((), ())
    assert [other.similarity for other in hit.others] == [0.9]
    assert hit.explain == {"fusion": None}
    with pytest.raises(FrozenInstanceError):
        hit.text = "other"


@pytest.mark.parametrize("vector", [[0.5, -1.0], array("f", [0.5, -1]), np.array([0.5, -1])])
def test_own_vectors_may_be_lists_or_arrays(ask, vector) -> None:
    handle, seen = answers({"results": []}, EMBEDDED, {"responses": []}, {"moments": []})
    ask(handle)("search", embedding=vector, embedding_type="frame")
    ask(handle)("embed", 1, [{"id": 1, "text": "x", "embedding": vector}])
    ask(handle)("search_batch", [{"embedding": vector}])
    ask(handle)("moments", embeddings={"frame": vector})
    assert seen[0][2] == {"embedding": [0.5, -1.0], "embedding_type": "frame"}
    assert seen[3][2] == {"embeddings": {"frame": [0.5, -1.0]}}
    assert seen[1][2]["segments"] == [{"id": 1, "text": "x", "embedding": [0.5, -1.0]}]
    assert seen[2][2]["queries"] == [{"embedding": [0.5, -1.0]}]


def test_a_batch_shares_options_and_a_query_may_have_its_own(ask) -> None:
    handle, seen = answers({"responses": [{"results": [RESULT]}, {"results": []}]})
    found = ask(handle)(
        "search_batch", ["one", {"query": "two", "top_k": 9}], top_k=3, mode="keyword"
    )
    queries = [
        {"query": "one", "top_k": 3, "mode": "keyword"},
        {"query": "two", "top_k": 9, "mode": "keyword"},
    ]
    assert seen == [("POST", "/search/batch", {"queries": queries})]
    assert [len(hits) for hits in found] == [1, 0]


def test_similar_names_the_segment(ask) -> None:
    handle, seen = answers({"results": [RESULT]})
    assert ask(handle)("similar", 101, 5, "frame", top_k=2)[0].text == "RSI above 70"
    name = {"media_item_id": 101, "segment_id": 5, "embedding_type": "frame", "top_k": 2}
    assert seen == [("POST", "/search/similar", name)]


def test_moments_have_evidence_by_type(ask) -> None:
    moment = {"media_item_id": 1, "start_time": 0, "end_time": 9.5, "score": 1.2}
    moment |= {"evidence": {"frame": [RESULT]}}
    around = {"before": [], "during": [METADATA], "after": []}
    handle, seen = answers({"moments": [moment | {"context": around}, moment]})
    first, second = ask(handle)("moments", "chart", types={"frame": 1}, context=2)
    assert seen[0][2] == {"query": "chart", "types": {"frame": 1}, "context": 2}
    assert (first.start_time, first.end_time, first.score) == (0, 9.5, 1.2)
    assert first.evidence["frame"][0].similarity == 0.9
    assert first.context.during[0].text == "RSI above 70"
    assert second.context is None


def test_vectors_are_exactly_those_of_the_service_in_their_order(ask) -> None:
    rows = np.random.default_rng(1).standard_normal((300, 8)).astype("<f4")
    encoded = [base64.b64encode(row.tobytes()).decode() for row in rows]
    data = [{"index": i, "embedding": text} for i, text in enumerate(encoded)]
    second = [{"index": i, "embedding": text} for i, text in enumerate(encoded[256:])]
    parts = [
        {"data": data[:256][::-1], "model": "m", "usage": {"prompt_tokens": 5}},
        {"data": second, "model": "m", "usage": {"prompt_tokens": 2}},
    ]
    handle, seen = answers({"data": [{"id": "m"}]}, *parts)
    found = ask(handle)("encode", [f"text {i}" for i in range(300)], input_type="query")
    np.testing.assert_array_equal(np.array(found.vectors), rows)
    assert (found.model, found.prompt_tokens) == ("m", 7)
    assert [len(body["input"]) for _, _, body in seen[1:]] == [256, 44]
    assert {body["input_type"] for _, _, body in seen[1:]} == {"query"}
    handle, seen = answers(parts[1])
    assert len(ask(handle)("encode", "one text", model="m").vectors) == 44
    assert seen[0][2]["input"] == ["one text"]


def test_lists_are_read_page_by_page(ask) -> None:
    pages = [
        {"media": [{"media_item_id": 1, "segments": {"clip": 2}}], "next_cursor": "x y"},
        {"media": [{"media_item_id": "b", "segments": {"clip": 1}}], "next_cursor": None},
    ]
    handle, seen = answers(*pages)
    found = ask(handle)("media", "clip", page_size=1)
    assert [(item.media_item_id, item.segments) for item in found] == [
        (1, {"clip": 2}),
        ("b", {"clip": 1}),
    ]
    assert [path for _, path, _ in seen] == [
        "/media?embedding_type=clip&limit=1",
        "/media?embedding_type=clip&limit=1&cursor=x+y",
    ]
    handle, seen = answers({"segments": [{"embedding_type": "clip", "metadata": METADATA}]})
    (segment,) = ask(handle)("segments", "a/b ü")
    assert (segment.embedding_type, segment.segment_id) == ("clip", "a")
    assert seen[0][1] == "/media/a%2Fb%20%C3%BC/segments?limit=1000"


def test_an_unhealthy_service_is_an_answer(ask) -> None:
    sick = httpx.Response(503, json={"status": "unhealthy", "reason": "Not ready: starting"})
    handle, seen = answers(sick)
    health = ask(handle)("health")
    assert (health.healthy, health.reason, health.stats) == (False, "Not ready: starting", None)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NoKey("send a key"), Unauthorized),
        (NotAllowed("read-only"), Forbidden),
        (NoSuch("no media item 7"), NotFound),
        (InvalidInput("wrong"), InvalidRequest),
        (BodyTooLarge("long"), InvalidRequest),
        (TooMuch("full"), Overloaded),
        (NotReady("starting"), Unavailable),
        (StoreFull("no room"), Unavailable),
        (StoreDamaged("page 7"), Unavailable),
        (ServiceError("broken"), Unavailable),
    ],
)
def test_the_service_s_errors_are_exceptions(ask, error, kind) -> None:
    handle, _ = answers(own(error))
    with pytest.raises(kind, match=error.detail) as raised:
        ask(handle, retries=Retries(attempts=1))("stats")
    found = pickle.loads(pickle.dumps(raised.value))
    for each in (raised.value, found):
        assert (each.status, each.code, each.detail) == (error.status, error.code, error.detail)
        assert (each.retry_after_s, each.request_id) == (error.retry_after_s, "r1")


def test_wrong_fields_are_named(ask) -> None:
    wrong = {"location": "body.top_k", "code": "less_than", "message": "too many"}
    problem = {"status": 422, "code": "invalid_input", "detail": "top_k", "errors": [wrong]}
    handle, _ = answers(httpx.Response(422, json=problem))
    with pytest.raises(InvalidRequest) as raised:
        ask(handle)("search", "x")
    assert [(e.location, e.code, e.message) for e in raised.value.errors] == [
        ("body.top_k", "less_than", "too many")
    ]


def test_errors_in_openai_s_form_are_read(ask) -> None:
    error = {"error": {"message": "the model 'x' isn't served", "code": "model_not_found"}}
    handle, _ = answers(httpx.Response(404, json=error))
    with pytest.raises(NotFound, match="isn't served") as raised:
        ask(handle)("encode", "text", model="x")
    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>"), {"hello": 1}, [], "x", 7])
def test_another_server_is_told_apart(ask, answer) -> None:
    handle, _ = answers(answer)
    with pytest.raises(UnexpectedAnswer, match="is it the embeddings service"):
        ask(handle)("stats")


def refused(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused", request=request)


def test_a_service_that_is_not_there_is_named(ask) -> None:
    with pytest.raises(Unreachable, match="http://service doesn't answer: connection refused"):
        ask(refused)("stats")


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("search", ("caf\udce9",), r"^query has '\\udce9' at position 3 \(from 0\), which is no"),
        ("search", ("x", {"filter": {"a": [1, float("nan")]}}), "^filter.a.1 is nan, which is no"),
        ("search", ("x", {"filter": {"\ud800": 1}}), r"^a field's name in filter has '\\ud800'"),
        (
            "embed",
            (1, [{"id": 1, "text": "x"}, {"id": 2, "text": "y", "start_time": float("inf")}]),
            "^segments.1.start_time is inf",
        ),
        ("embed", (1, [{"id": 1, "text": "x", "tags": {1, 2}}]), "^segments.0.tags is of type set"),
        ("encode", (["a", "\ud800"], {"model": "m"}), r"^input.1 has '\\ud800'"),
        (
            "store_many",
            ([{"media_item_id": 1, "id": 1, "text": "\ud800"}],),
            "^segments.0.text has",
        ),
        ("delete_media", ("\ud800",), "^media_item_id has"),
        ("delete_media", ("x" * 70_000,), "^the request's URL can't be used: URL too long"),
        ("segments", ("1", "\ud800"), "^embedding_type has"),
    ],
)
def test_what_no_request_can_hold_is_named(ask, method, arguments, message) -> None:
    *plain, last = arguments
    options = last if isinstance(last, dict) else {}
    with pytest.raises(InvalidValue, match=message):
        ask(refused)(method, *(plain if options else arguments), **options)


def test_media_items_that_look_like_folders_keep_their_names(ask) -> None:
    deleted = {"media_item_id": "x", "embedding_type": None, "embeddings_deleted": 1}
    handle, seen = answers(deleted, deleted, deleted)
    for name in ("..", ".", "../a"):
        ask(handle)("delete_media", name)
    assert [path for _, path, _ in seen] == ["/media/%2E%2E", "/media/%2E", "/media/..%2Fa"]


def test_an_answer_that_cannot_be_unpacked_is_told(ask) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.DecodingError("incorrect header check", request=request)

    with pytest.raises(UnexpectedAnswer, match="incorrect header check"):
        ask(handle)("stats")


PASSING: list[Any] = [
    own(TooMuch("full")),
    own(NotReady("starting")),
    own(DeadlineExceeded("late")),
    httpx.Response(502, text="<html>"),
    httpx.Response(503),
    httpx.ConnectError("refused"),
    httpx.ReadError("reset"),
    httpx.RemoteProtocolError("closed"),
]
HARMLESS = [PASSING[0], PASSING[5]]
LASTING: list[Any] = [
    own(InvalidInput("wrong")),
    own(StoreDamaged("page 7")),
    own(ServiceError("broken")),
    httpx.ReadTimeout("late"),
]


@pytest.mark.parametrize("failure", PASSING, ids=str)
def test_what_passes_is_tried_again(ask, failure) -> None:
    handle, seen = answers(at_once(failure), at_once(failure), EMBEDDED)
    asked = ask(handle, retries=Retries(attempts=3, first_pause_s=0))
    assert asked("embed", 1, [{"id": 1, "text": "x"}]).embeddings_created == 1
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("failure", LASTING, ids=str)
def test_what_lasts_is_not_tried_again(ask, failure) -> None:
    handle, seen = answers(failure, EMBEDDED)
    with pytest.raises((Refused, TimedOut)):
        ask(handle)("embed", 1, [{"id": 1, "text": "x"}])
    assert len(seen) == 1


@pytest.mark.parametrize("failure", [*PASSING, *LASTING], ids=str)
def test_a_deletion_is_repeated_only_where_nothing_can_have_happened(ask, failure) -> None:
    deleted = {"media_item_id": 1, "embedding_type": None, "embeddings_deleted": 3}
    handle, seen = answers(at_once(failure), deleted)
    asked = ask(handle)
    if failure in HARMLESS:
        assert asked("delete_media", 1).embeddings_deleted == 3
        assert len(seen) == 2
    else:
        with pytest.raises(EmbeddingsError):
            asked("delete_media", 1)
        assert len(seen) == 1


def test_pauses_double_up_to_the_longest_and_heed_the_service() -> None:
    retries = Retries(attempts=10, first_pause_s=1, longest_pause_s=8)
    call, refusal = calls.stats(), Unreachable("gone")
    for attempt, least in enumerate([1, 2, 4, 8, 8], 1):
        pauses = {retries.pause_s(call, refusal, attempt) for _ in range(50)}
        assert len(pauses) > 1
        assert least <= min(pauses) <= max(pauses) <= 1.5 * least
    assert retries.pause_s(call, refusal, 10) is None
    asked = Overloaded("full", 429, "overloaded", retry_after_s=5)
    assert retries.pause_s(call, asked, 1) >= 5
    too_long = Overloaded("full", 429, "overloaded", retry_after_s=9)
    assert retries.pause_s(call, too_long, 1) is None


def retry_after_of(ask, header: str) -> float | None:
    handle, _ = answers(httpx.Response(503, headers={"Retry-After": header}))
    with pytest.raises(Unavailable) as raised:
        ask(handle, retries=Retries(attempts=1))("stats")
    return raised.value.retry_after_s


@pytest.mark.parametrize("usegmt", [True, False])
def test_retry_after_may_be_a_date(ask, usegmt) -> None:
    in_an_hour = formatdate(time.time() + 3600, usegmt=usegmt)
    assert 3500 <= retry_after_of(ask, in_an_hour) <= 3600


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("7.5", 7.5),
        ("-3", 0),
        ("soon", None),
        ("inf", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_read_as_far_as_it_says_something(ask, retry_after, seconds) -> None:
    assert retry_after_of(ask, retry_after) == seconds


def test_url_and_key_come_from_the_environment(monkeypatch) -> None:
    for name in ("EMBEDDINGS_SERVICE_URL", "EMBEDDINGS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    headers = []

    def handle(request: httpx.Request) -> httpx.Response:
        headers.append((str(request.url), request.headers.get("Authorization")))
        return httpx.Response(503, json={"status": "unhealthy"})

    def health(*arguments: str | None) -> None:
        Client(*arguments, transport=httpx.MockTransport(handle)).health()

    health()
    monkeypatch.setenv("EMBEDDINGS_SERVICE_URL", "https://search.example/base/")
    monkeypatch.setenv("EMBEDDINGS_API_KEY", " first-key-of-two, second-key-of-two")
    health()
    health("http://other", "")
    health("http://other", "another-key")
    assert headers == [
        ("http://localhost:8004/health", None),
        ("https://search.example/base/health", "Bearer first-key-of-two"),
        ("http://other/health", None),
        ("http://other/health", "Bearer another-key"),
    ]


@pytest.mark.parametrize("url", ["localhost:8004", "ftp://x", "http://", "http://a:b", "/x"])
def test_a_wrong_url_is_told(url: str) -> None:
    with pytest.raises(ValueError, match="the service's URL"):
        Client(url)


def test_a_key_that_no_header_takes_is_told_without_showing_it() -> None:
    with pytest.raises(ValueError, match="the API key has other characters") as raised:
        Client(api_key="secret\u2026")
    assert "secret" not in str(raised.value)


class Store:
    """Answers /embed; keeps what came, in the order of the answers, and how much at a time."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self.calls.append(body)
            self._at_once -= 1
        if any("poison" in segment["text"] for segment in body["segments"]):
            return own(InvalidInput("a text is poisoned"))
        count = len(body["segments"])
        return httpx.Response(200, json=EMBEDDED | {"embeddings_created": count, "changed": count})

    def texts(self) -> dict[tuple[str, str], str]:
        return {
            (str(call["media_item_id"]), str(segment["id"])): segment["text"]
            for call in self.calls
            for segment in call["segments"]
        }


def rows(count: int) -> Any:
    """Segments of media items that alternate."""
    for i in range(count):
        yield {"media_item_id": i % 3, "id": i, "text": f"text {i}", "start_time": i}


def test_many_segments_travel_in_batches_and_progress_is_told(ask) -> None:
    store, told = Store(), []
    stored = ask(store)("store_many", rows(1000), "clip", batch_size=100, progress=told.append)
    assert stored == StoredMany(12, 1000, 1000, 0)
    assert told[-1] == stored
    assert [each.calls for each in told] == list(range(1, 13))
    assert len(store.texts()) == 1000
    assert {call["embedding_type"] for call in store.calls} == {"clip"}
    assert max(len(call["segments"]) for call in store.calls) == 100
    assert "media_item_id" not in store.calls[0]["segments"][0]


def test_one_media_item_may_be_given_for_all(ask) -> None:
    store = Store()
    ask(store)("store_many", [{"id": 1, "text": "a"}], media_item_id="lesson")
    assert store.texts() == {("lesson", "1"): "a"}


def test_the_last_of_several_segments_with_one_name_stays(ask) -> None:
    store = Store()
    same = [{"media_item_id": 1, "id": 7, "text": f"version {i}"} for i in range(20)]
    ask(store)("store_many", same, in_flight=8)
    assert [call["segments"][0]["text"] for call in store.calls] == [r["text"] for r in same]


def test_an_error_ends_it_and_tells_what_was_stored(ask) -> None:
    def some() -> Any:
        yield from rows(30)
        yield {"media_item_id": 0, "id": "bad", "text": "poison"}

    with pytest.raises(InvalidRequest, match="poisoned") as raised:
        ask(Store())("store_many", some(), batch_size=10, in_flight=1)
    assert raised.value.__notes__[0].endswith("storing them again is safe")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"id": 1, "text": "x"}, "no media_item_id"), ({"media_item_id": 1, "text": "x"}, "no id")],
)
def test_a_segment_without_a_name_is_told_by_its_position(ask, wrong, message) -> None:
    with pytest.raises(ValueError, match=f"segment 2 \\(from 0\\) has {message}"):
        ask(Store())("store_many", [*rows(2), wrong])


async def test_an_asynchronous_iterator_is_read_as_fast_as_calls_are_answered() -> None:
    taken, most_ahead, answered = 0, 0, 0

    async def some() -> Any:
        nonlocal taken, most_ahead
        for row in rows(3000):
            taken += 1
            most_ahead = max(most_ahead, taken - answered)
            yield row

    async def slow(request: httpx.Request) -> httpx.Response:
        nonlocal answered
        count = len(json.loads(request.content)["segments"])
        await asyncio.sleep(0)
        answered += count
        return httpx.Response(200, json=EMBEDDED | {"embeddings_created": count})

    async with AsyncClient("http://service", transport=httpx.MockTransport(slow)) as client:
        stored = await client.store_many(some(), batch_size=50, in_flight=2)
    assert stored.embeddings_created == 3000
    # Two calls, and less than a batch of each of the three media items.
    assert most_ahead <= 2 * 50 + 3 * 50 + 1


names = st.integers(0, 4)


@given(st.lists(st.tuples(names, names, st.integers(0, 10**6))), st.integers(1, 7))
def test_batches_hold_every_segment_once_and_in_order(given_rows, size) -> None:
    sent = [
        {"media_item_id": item, "id": name, "text": str(number)}
        for item, name, number in given_rows
    ]
    batches = list(Batches(size=size).all_of(sent))
    for item in range(5):
        expected = [(row["id"], row["text"]) for row in sent if row["media_item_id"] == item]
        got = [
            (segment["id"], segment["text"])
            for batch in batches
            if batch.media_item_id == item
            for segment in batch.segments
        ]
        assert got == expected
    for batch in batches:
        assert 1 <= len(batch.segments) == len(batch.names) <= size


def test_what_waits_is_bounded() -> None:
    batches, waiting = Batches(), 0
    for i in range(3 * WINDOW):
        waiting += 1 - sum(
            len(batch.segments) for batch in batches.add({"media_item_id": i, "id": 1, "text": "x"})
        )
        assert waiting <= WINDOW
    long = [{"media_item_id": 1, "id": i, "text": "x" * (BATCH_CHARS // 2)} for i in range(5)]
    assert [len(batch.segments) for batch in Batches().all_of(long)] == [2, 2, 1]


@pytest.mark.parametrize(("option", "value"), [("batch_size", 0), ("in_flight", 0)])
def test_sizes_of_nothing_are_refused(ask, option, value) -> None:
    with pytest.raises(ValueError, match=f"{option} is 0; it must be at least 1"):
        ask(Store())("store_many", [], **{option: value})


def test_both_clients_have_the_same_methods() -> None:
    def public(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert public(Client) == public(AsyncClient)


def test_every_public_name_is_there() -> None:
    assert all(hasattr(client_package, name) for name in client_package.__all__)
    with pytest.raises(ImportError, match="Nothing"):
        from deployments.client import Nothing  # noqa: F401


HEAVY = {"ray", "torch", "numpy", "fastapi", "faiss", "pydantic", "sentence_transformers"}


@pytest.mark.parametrize(
    ("statement", "more"),
    [
        ("from deployments.client import Client, AsyncClient", set()),
        ("import deployments.client.cli", {"httpx", "rich"}),
    ],
)
def test_importing_the_client_loads_nothing_heavy(statement, more) -> None:
    program = f"import sys\n{statement}\nprint(sorted({HEAVY | more!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
