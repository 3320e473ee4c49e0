"""Bodies are refused by their size, by what all of them have together, and when they are slow."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.rest import body_limit
from deployments.rest.body_limit import LEAST_BYTES, BodyLimit

MAX_BYTES = 4 * LEAST_BYTES
MAX_HELD_BYTES = 6 * LEAST_BYTES


class App:
    """Reads the whole body, then answers when the test lets it."""

    def __init__(self):
        self.entered = 0
        self.may_answer = asyncio.Event()

    async def __call__(self, scope, receive, send):
        self.entered += 1
        while (await receive()).get("more_body"):
            pass
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def request(limit, *parts, declared=None, method="POST"):
    """Send a body in parts; returns the status and the body of the answer."""
    messages = [
        {"type": "http.request", "body": part, "more_body": i + 1 < len(parts)}
        for i, part in enumerate(parts)
    ] or [{"type": "http.request"}]
    headers = [] if declared is None else [(b"content-length", str(declared).encode())]
    answer = []

    async def receive():
        return messages.pop(0) if messages else await forever()

    async def send(message):
        answer.append(message)

    await limit({"type": "http", "method": method, "headers": headers}, receive, send)
    return answer[0]["status"], answer[1]["body"], dict(answer[0]["headers"])


async def forever():
    return await asyncio.get_running_loop().create_future()


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def limit_of(app):
    return BodyLimit(app, MAX_BYTES, MAX_HELD_BYTES)


def open_app():
    app = App()
    app.may_answer.set()
    return app


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_the_largest_size_passes_and_one_byte_more_does_not(declared):
    async def run(size):
        app = open_app()
        body = b"x" * size
        parts = [body[: size // 2], body[size // 2 :]]
        status, text, _ = await request(limit_of(app), *parts, declared=size if declared else None)
        return status, text, app.entered

    assert asyncio.run(run(MAX_BYTES))[0] == 200
    status, text, entered = asyncio.run(run(MAX_BYTES + 1))
    assert (status, json.loads(text)["code"]) == (413, "body_too_large")
    assert entered == (0 if declared else 1)


def test_a_length_of_thousands_of_digits_is_too_large():
    status, _, _ = asyncio.run(request(limit_of(open_app()), b"", declared="9" * 5000))
    assert status == 413


def test_many_bodies_at_once_are_refused_until_some_are_answered():
    async def run():
        app = App()
        limit = limit_of(app)
        held = [
            asyncio.create_task(request(limit, b"x" * 2 * LEAST_BYTES, declared=2 * LEAST_BYTES))
            for _ in range(3)
        ]
        await settle()
        refused = await request(limit, b"{}", declared=2)
        app.may_answer.set()
        statuses = [status for status, _, _ in await asyncio.gather(*held)]
        afterwards = await request(limit, b"{}", declared=2)
        return refused, statuses, afterwards[0], app.entered

    (status, text, headers), statuses, afterwards, entered = asyncio.run(run())
    assert status == 429
    assert json.loads(text)["code"] == "overloaded"
    assert "EMBEDDINGS_MAX_HELD_BYTES" in json.loads(text)["detail"]
    assert int(headers[b"retry-after"]) > 0
    assert statuses == [200, 200, 200]
    assert afterwards == 200
    assert entered == 4


def test_small_requests_count_too():
    async def run():
        app = App()
        limit = limit_of(app)
        tasks = [asyncio.create_task(request(limit, b"{}", declared=2)) for _ in range(8)]
        await settle()
        app.may_answer.set()
        return sorted(status for status, _, _ in await asyncio.gather(*tasks))

    assert asyncio.run(run()) == [200] * 6 + [429] * 2


class StalledClients:
    """Requests that announce a body, send the beginning of it and no more."""

    def __init__(self, limit, declared, sent=b""):
        self.statuses = []
        scope = {
            "type": "http",
            "method": "POST",
            "headers": [(b"content-length", str(declared).encode())],
        }

        async def send(message):
            if message["type"] == "http.response.start":
                self.statuses.append(message["status"])

        async def stall():
            parts = [sent] if sent else []

            async def receive():
                if parts:
                    return {"type": "http.request", "body": parts.pop(), "more_body": True}
                return await forever()

            await limit(scope, receive, send)

        self.tasks = [asyncio.create_task(stall()) for _ in range(2)]


def test_bodies_that_are_only_announced_keep_nobody_out():
    async def run():
        limit = limit_of(open_app())
        stalled = StalledClients(limit, declared=MAX_BYTES)
        await settle()
        status, _, _ = await request(limit, b"x" * MAX_BYTES, declared=MAX_BYTES)
        for task in stalled.tasks:
            task.cancel()
        return status

    assert asyncio.run(run()) == 200


@pytest.mark.parametrize("sent", [b"", b"x" * 100])
def test_a_body_that_stalls_is_given_up_and_frees_its_place(monkeypatch, sent):
    monkeypatch.setattr(body_limit, "FIRST_BYTES_S", 0.02)

    async def run():
        limit = limit_of(open_app())
        stalled = StalledClients(limit, MAX_BYTES, sent)
        await asyncio.gather(*stalled.tasks)
        return stalled.statuses, limit._held_bytes

    assert asyncio.run(run()) == ([408, 408], 0)


def test_an_answer_may_take_longer_than_a_body(monkeypatch):
    monkeypatch.setattr(body_limit, "FIRST_BYTES_S", 0.02)

    class Watching(App):
        """Waits for the client to go away while it works, as Starlette does."""

        async def __call__(self, scope, receive, send):
            await receive()
            gone = asyncio.create_task(receive())
            await asyncio.sleep(0.1)
            assert not gone.done()
            gone.cancel()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    assert asyncio.run(request(limit_of(Watching()), b"{}"))[0] == 200


def test_requests_without_a_body_always_pass():
    async def run():
        app = App()
        limit = limit_of(app)
        full = [asyncio.create_task(request(limit, b"{}", declared=2)) for _ in range(6)]
        health = asyncio.create_task(request(limit, method="GET"))
        await settle()
        app.may_answer.set()
        await asyncio.gather(*full)
        return await health

    assert asyncio.run(run())[0] == 200


def test_a_request_that_is_cancelled_or_fails_frees_its_place():
    class Failing:
        async def __call__(self, scope, receive, send):
            raise ValueError("failed")

    async def run():
        app = App()
        limit = limit_of(app)
        tasks = [asyncio.create_task(request(limit, b"{}", declared=2)) for _ in range(6)]
        await settle()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        app.may_answer.set()
        status, _, _ = await request(limit, b"x" * MAX_BYTES, declared=MAX_BYTES)
        failing = BodyLimit(Failing(), MAX_BYTES, LEAST_BYTES)
        for _ in range(3):
            with pytest.raises(ValueError, match="failed"):
                await request(failing, b"{}", declared=2)
        return status

    assert asyncio.run(run()) == 200


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, MAX_BYTES + LEAST_BYTES), st.integers(1, 5), st.booleans()),
        max_size=12,
    )
)
def test_what_is_held_never_exceeds_the_limit_and_ends_at_nothing(requests):
    class Watching(App):
        def __init__(self):
            super().__init__()
            self.bodies = 0
            self.most = 0

        async def __call__(self, scope, receive, send):
            size = 0
            try:
                while True:
                    message = await receive()
                    await asyncio.sleep(0)
                    size += len(message["body"])
                    self.bodies += len(message["body"])
                    self.most = max(self.most, self.bodies)
                    if not message["more_body"]:
                        break
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b""})
            finally:
                self.bodies -= size

    async def run():
        app = Watching()
        limit = limit_of(app)
        tasks = []
        for size, parts, declared in requests:
            step = max(1, -(-size // parts))
            body = [b"x" * min(step, size - at) for at in range(0, size, step)] or [b""]
            tasks.append(request(limit, *body, declared=size if declared else None))
        answers = await asyncio.gather(*tasks)
        return app, limit, [status for status, _, _ in answers]

    app, limit, statuses = asyncio.run(run())
    assert app.most <= MAX_HELD_BYTES
    assert limit._held_bytes == 0
    for (size, _, _), status in zip(requests, statuses, strict=True):
        if size > MAX_BYTES:
            assert status in (413, 429)
        else:
            assert status in (200, 429)
    if len(requests) == 1:
        assert statuses == [413 if requests[0][0] > MAX_BYTES else 200]
