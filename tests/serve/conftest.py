import pytest
from playwright.sync_api import expect, sync_playwright

from tests.serve.browser import launch_options
from tests.serve.service import Service

# As long as the tests of a busy machine may take.
WAIT_MS = 30_000


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """One service for all tests that neither restart it nor count everything it holds."""
    with Service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(**launch_options())
        yield chromium
        chromium.close()
