"""The documents' examples against a real service with the samples, and the guide in a browser."""

import shutil
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from deployments import local
from tests.documents import DOCUMENTS, GUIDE, ROOT, blocks
from tests.serve.browser import launch_options
from tests.serve.examples import Reader, examples
from tests.serve.service import Service, operator_environment

SAMPLES = set(range(101, 113))
OTHER_MACHINE = "needs a machine of its own: it makes an environment, or takes Ray's usual ports"
NOT_EXECUTED = {
    ("README.md", "make run     # environment, model, and the service on http://127.0.0.1:8004 with sample data"): OTHER_MACHINE,
}
"""Examples that no test runs, by document and first line, and why."""


def name_of(document):
    return str(document.relative_to(ROOT))


def found_in(document):
    return list(examples(blocks(document)))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """A service as `make run` starts it."""
    with Service(tmp_path_factory.mktemp("guide")) as running:
        with httpx.Client(base_url=running.url, timeout=120) as client:
            local.load_samples(client, ROOT / "data/samples")
        yield running


@pytest.fixture
def reader(samples, tmp_path):
    """Somebody who types what a document says, in a store that has the samples only."""
    for listed in samples.get("/media?limit=1000").json()["media"]:
        if listed["media_item_id"] not in SAMPLES:
            assert samples.delete(f"/media/{listed['media_item_id']}").status_code == 200
    places = {
        "http://localhost:8004": samples.url,
        "http://127.0.0.1:8004": samples.url,
        "localhost:8004": samples.url.removeprefix("http://"),
        "http://127.0.0.1:8265": samples.dashboard,
        "/backups": str(tmp_path / "backups"),
        "/new": str(tmp_path / "new"),
    }
    environment = {
        **operator_environment(),
        "EMBEDDINGS_SERVICE_URL": samples.url,
        "FAISS_INDEX_DIR": str(samples.index_dir),
        "RAY_DASHBOARD_ADDRESS": samples.dashboard,
    }
    return Reader(tmp_path, places, environment)


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if found_in(each)], ids=name_of)
def test_every_example_does_what_the_document_says(reader, document):
    for example in found_in(document):
        if (name_of(document), example.name) not in NOT_EXECUTED:
            reader.run(example)


def test_what_is_not_executed_is_still_there():
    there = {(name_of(each), example.name) for each in DOCUMENTS for example in found_in(each)}
    assert NOT_EXECUTED.keys() <= there
