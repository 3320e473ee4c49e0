"""A service whose indices have several models: of texts, of images, and one that runs elsewhere."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.fakes import write_tiny_clip
from tests.serve.service import Service

NOISE = 900
"""Pixels of a side; noise can't be compressed, so a PNG of it has 2.4 MB."""


def noise(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (NOISE, NOISE, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    images = folder / "images"
    images.mkdir()
    for number in range(4):
        (images / f"{number}.png").write_bytes(noise(number))
    settings = {
        "embedding_model_frame": str(write_tiny_clip(folder / "tiny")),
        "embedding_model_clip": "external:films:5",
        "embeddings_image_root": str(images),
    }
    with Service(folder / "service", settings) as running:
        yield running


def test_each_index_by_its_own_model(service):
    service.embed(1, [{"id": 1, "text": "RSI above 70 means overbought"}])
    frames = [{"id": number, "image_path": f"{number}.png"} for number in range(4)]
    assert service.embed(1, frames, kind="frame")["embeddings_created"] == 4
    service.embed(1, [{"id": 1, "embedding": [1, 2, 3, 4, 5]}], kind="clip")
    (lesson,) = service.search("when is a stock overbought?")
    assert lesson["similarity"] > 0.3
    assert len(service.search("market", "frame")) == 4
    found = service.post("/search", {"embedding": [1, 2, 3, 4, 5], "embedding_type": "clip"})
    assert found.json()["results"][0]["similarity"] == pytest.approx(1)
    refused = service.post("/search", {"query": "market", "embedding_type": "clip"})
    assert (refused.status_code, "send `embedding`" in refused.text) == (422, True)
    indices = service.get("/stats").json()["indices"]
    told = {kind: each["embedding_dimension"] for kind, each in indices.items()}
    assert told == {"transcript": 384, "frame": 24, "clip": 5}
    assert len(service.get("/v1/models").json()["data"]) == 2
    assert service.get("/health").json()["status"] == "healthy"
    moments = service.post("/search/moments", {"query": "overbought"}).json()["moments"]
    assert moments[0]["evidence"]["transcript"]


def test_images_in_base64_larger_than_a_message_between_replicas(service):
    content = [base64.b64encode(noise(number)).decode() for number in range(2)]
    frames = [{"id": number, "image": each} for number, each in enumerate(content)]
    assert sum(map(len, content)) > 4 * 1024 * 1024
    assert service.embed("large", frames, kind="frame")["changed"] == 2
    assert service.embed("large", frames, kind="frame")["changed"] == 0


def test_hostile_images_break_nothing(service):
    for fields in (
        {"image_path": "../service/serve.log"},
        {"image_path": "."},
        {"image": base64.b64encode(noise(0)[:5000]).decode()},
    ):
        body = {"media_item_id": "hostile", "embedding_type": "frame"}
        response = service.post("/embed", {**body, "segments": [{"id": 1, **fields}]})
        assert response.status_code == 422, response.text
    assert service.get("/health").json()["status"] == "healthy"


def test_the_page_searches_what_a_text_can_be_compared_with(service, browser):
    service.embed(2, [{"id": 1, "text": "Support and resistance levels"}])
    page = browser.new_page(base_url=service.url)
    page.goto("/?q=support&type=all")
    expect(page.get_by_text("Support and resistance levels")).to_be_visible()
    expect(page.get_by_role("radio", name="Clips")).to_be_disabled()
    expect(page.get_by_role("radio", name="Frames")).to_be_enabled()
    page.locator("#overview-toggle").click()
    for model in ("all-MiniLM-L6-v2", "external:films:5"):
        expect(page.locator("#overview").get_by_text(model)).to_be_visible()
    page.close()
