"""The router in a real API service under uvicorn, against the real service."""

import contextlib
import socket
import threading
import time

import requests
import uvicorn
from fastapi import FastAPI

from deployments.client.router import search_router


@contextlib.contextmanager
def api_service(service_url):
    """An API service with the router and a lifespan of its own; what that did."""
    events = []

    @contextlib.asynccontextmanager
    async def lifespan(_):
        events.append("started")
        yield {"own": "state"}
        events.append("ended")

    app = FastAPI(lifespan=lifespan)
    app.include_router(search_router(service_url), prefix="/api")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            deadline = time.monotonic() + 30
            while not server.started:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}/api/embeddings/search", events
        finally:
            server.should_exit = True
            thread.join(30)


def test_it_answers_as_the_service_and_ends_in_order(service):
    service.embed("router", [{"id": 1, "text": "a hammer candle at support", "ticker": "SPY"}])
    query = "?query=hammer+candle&top_k=5&embedding_type=transcript&media_item_id=router"
    with api_service(service.url) as (url, events):
        answer = requests.get(url + query, timeout=60)
        wrong = requests.get(f"{url}?query=x&top_k=0", timeout=60)
        missing = requests.get(url, timeout=60)
    own = service.get(f"/embeddings/search{query}").json()
    assert answer.status_code == 200
    assert answer.json()["results"] == own["results"]
    assert answer.json()["results"][0]["metadata"]["ticker"] == "SPY"
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_input")
    assert wrong.json()["errors"][0]["location"] == "query.top_k"
    assert missing.status_code == 422
    assert events == ["started", "ended"]


def test_without_the_service_it_says_so():
    with api_service("http://127.0.0.1:9") as (url, _):
        answer = requests.get(f"{url}?query=x", timeout=60)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.json()["detail"] == "the embeddings service doesn't answer"
