"""The search page in a real browser, over a service with API keys and the samples."""

from urllib.parse import quote

import httpx
import pytest

from deployments.client import Client
from deployments.samples import load_samples
from tests.serve.page.pages import ENVIRONMENT, FULL_KEY, KEY
from tests.serve.service import ROOT, Service


@pytest.fixture(scope="package")
def guarded(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("page"), environment=ENVIRONMENT) as running:
        yield running


@pytest.fixture(scope="package")
def writer(guarded):
    with httpx.Client(base_url=guarded.url, headers={"X-API-Key": FULL_KEY}, timeout=120) as client:
        yield client


@pytest.fixture(scope="package")
def samples(guarded):
    with Client(guarded.url, FULL_KEY) as client:
        load_samples(client, ROOT / "data/samples")


@pytest.fixture
def store(writer):
    """Stores segments of a media item, and deletes it at the end."""
    stored = set()

    def store(media_item_id, segments, kind="transcript"):
        body = {"media_item_id": media_item_id, "embedding_type": kind, "segments": segments}
        writer.post("/embed", json=body).raise_for_status()
        stored.add(media_item_id)

    yield store
    for media_item_id in stored:
        writer.delete(f"/media/{quote(media_item_id, safe='')}").raise_for_status()


@pytest.fixture
def complaints():
    """What the consoles of a test's pages complain of: nothing, unless the test takes it away."""
    found = []
    yield found
    assert found == []


@pytest.fixture
def open_page(browser, guarded, complaints):
    """Opens pages that have the key."""
    contexts = []

    def complain(message):
        # What a refused request leaves there is no fault of the page.
        if message.type in ("error", "warning") and "Failed to load" not in message.text:
            complaints.append(message.text)

    def opened(*, key=KEY, path="/", **options):
        context = browser.new_context(
            base_url=guarded.url, permissions=["clipboard-read", "clipboard-write"], **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", complain)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if key is not None:
            page.add_init_script(f"sessionStorage.setItem('embeddings-api-key', '{key}')")
        if path is not None:
            page.goto(path)
        return page

    yield opened
    for context in contexts:
        context.close()
