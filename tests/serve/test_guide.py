"""The documents' examples against a real service with the samples, and the guide in a browser."""

import json
import pickle

import faiss
import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

from deployments.client import Client
from deployments.samples import load_samples
from tests.documents import DOCUMENTS, GUIDE, ROOT, blocks
from tests.serve.browser import serious
from tests.serve.examples import Reader, examples
from tests.serve.service import Service, operator_environment

SAMPLES = set(range(101, 113))
NOT_EXECUTED = {
    "README.md": {
        "make run": "makes an environment and takes Ray's usual ports",
        "ray start --head && serve deploy serve_config.yaml": "takes Ray's usual ports",
        "make test": "would run itself",
    },
    "deployments/web/guide/clients.md": {
        "from langchain_openai import": "LangChain isn't installed with the tests",
        "from llama_index.embeddings": "LlamaIndex isn't installed with the tests",
    },
    "deployments/web/guide/api.md": {
        "curl -s -X POST localhost:8004/migrations": "needs a second model, which "
        "test_migration.py has",
    },
    "CONTRIBUTING.md": {"make install": "makes an environment, and would run itself"},
    "deployments/web/guide/operations.md": {
        "serve run serve_config.yaml": "takes Ray's usual ports",
        "docker build": "needs Docker and a Kubernetes cluster",
        "embeddings-service migrate": "needs a second model, which test_migration.py has",
        "serve deploy serve_config.yaml": "would redeploy this service; test_operator.py does it",
    },
    "deployments/web/guide/backfill.md": {
        "export RAY_AUTH_MODE=token\nray job submit": "Ray may run it in another test's Ray; "
        "test_backfill.py names the right one",
    },
}
"""Examples that no test runs, by document and how they begin, and why."""


def name_of(document):
    return str(document.relative_to(ROOT))


def found_in(document):
    return list(examples(blocks(document)))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """A service as `make run` starts it."""
    with Service(tmp_path_factory.mktemp("guide")) as running:
        with Client(running.url) as client:
            load_samples(client, ROOT / "data/samples")
        yield running


@pytest.fixture
def reader(samples, tmp_path):
    """Somebody who types what a document says, in a store that has the samples only."""
    for listed in samples.get("/media?limit=1000").json()["media"]:
        if listed["media_item_id"] not in SAMPLES:
            assert samples.delete(f"/media/{listed['media_item_id']}").status_code == 200
    old_service_files(samples.url, tmp_path / "old" / "faiss")
    environment = {
        **operator_environment(),
        "EMBEDDINGS_SERVICE_URL": samples.url,
        "FAISS_INDEX_DIR": str(samples.index_dir),
        "RAY_DASHBOARD_ADDRESS": samples.dashboard,
    }
    return Reader(tmp_path, places(samples, tmp_path), environment)


def places(service, folder):
    """What the documents call addresses and folders, and what they are here."""
    return {
        "http://localhost:8004": service.url,
        "http://127.0.0.1:8004": service.url,
        "localhost:8004": service.url.removeprefix("http://"),
        "http://127.0.0.1:8265": service.dashboard,
        **{f"/{name}/": f"{folder}/{name}/" for name in ("backups", "new", "old", "videos")},
    }


def old_service_files(url, folder):
    """What the old service kept of two lessons' segments."""
    folder.mkdir(parents=True)
    for kind in ("transcript", "frame", "clip"):
        lines = (ROOT / "data/samples" / f"{kind}s.jsonl").read_text().splitlines()[:40]
        rows = [json.loads(line) for line in lines]
        for row in rows:
            row["segment_id"] = row.pop("id")
        body = {"model": "all-MiniLM-L6-v2", "input": [row["text"] for row in rows]}
        answer = httpx.post(f"{url}/v1/embeddings", json=body, timeout=60).json()
        vectors = np.array([each["embedding"] for each in answer["data"]], np.float32)
        index = faiss.IndexFlatL2(vectors.shape[1])
        index.add(vectors)
        faiss.write_index(index, str(folder / f"{kind}_index.faiss"))
        (folder / f"{kind}_metadata.pkl").write_bytes(pickle.dumps(rows))


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if found_in(each)], ids=name_of)
def test_every_example_does_what_the_document_says(reader, document):
    exceptions = tuple(NOT_EXECUTED.get(name_of(document), ()))
    for example in found_in(document):
        if not example.block.text.startswith(exceptions):
            reader.run(example)


def test_what_is_not_executed_is_still_there():
    for name, exceptions in NOT_EXECUTED.items():
        texts = [example.block.text for example in found_in(ROOT / name)]
        for beginning in exceptions:
            assert any(text.startswith(beginning) for text in texts), (name, beginning)


@pytest.fixture
def open_guide(browser, samples):
    """Opens the guide; at the end there is nothing that the consoles complain of."""
    contexts, complaints = [], []

    def opened(path="/guide", **options):
        context = browser.new_context(base_url=samples.url, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_pages_can_be_read_by_everybody(open_guide, scheme, width):
    page = open_guide(color_scheme=scheme, viewport={"width": width, "height": 740})
    for source in GUIDE.glob("*.md"):
        name = source.stem
        page.goto("/guide" if name == "index" else f"/guide/{name}")
        expect(page.locator("h1")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == width, name
        assert serious(page) == [], name


def test_a_reader_finds_the_way(open_guide):
    page = open_guide("/")
    page.get_by_role("link", name="Guide").click()
    expect(page.get_by_role("heading", name="Guide", level=1)).to_be_visible()
    pages = page.get_by_role("navigation", name="Guide")
    pages.get_by_role("link", name="Operations").click()
    expect(page.get_by_role("heading", name="Operations", level=1)).to_be_visible()
    pages.get_by_role("link", name="Sizing").click()
    expect(page.get_by_role("heading", name="Sizing")).to_be_in_viewport()
    assert page.url.endswith("/guide/operations#sizing")
    page.get_by_role("link", name="engines", exact=True).click()
    expect(page.get_by_role("heading", name="Engines")).to_be_in_viewport()
    page.get_by_role("link", name="Search", exact=True).click()
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_a_phone_has_the_pages_below_the_text(open_guide):
    page = open_guide("/guide/settings", viewport={"width": 360, "height": 740})
    below = page.get_by_role("navigation", name="Guide")
    expect(below).not_to_be_in_viewport()
    page.get_by_role("link", name="Pages").click()
    expect(below).to_be_in_viewport()
