import pytest
from playwright.sync_api import expect, sync_playwright

from deployments.client import Client
from tests.serve.browser import launch_options
from tests.serve.service import Service

# As long as the tests of a busy machine may take.
WAIT_MS = 30_000


@pytest.fixture(scope="session")
def shared_service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def service(shared_service):
    """One service for all tests that don't restart it, without what other modules stored in it."""
    with Client(shared_service.url) as client:
        for item in list(client.media()):
            client.delete_media(item.media_item_id)
    return shared_service


@pytest.fixture(scope="module")
def browser():
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(**launch_options())
        yield chromium
        chromium.close()
