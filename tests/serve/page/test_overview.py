"""The overview of what the service holds and does."""

import re

import pytest
from playwright.sync_api import expect

from tests.serve.page.pages import at, box, hits

pytestmark = pytest.mark.usefixtures("samples")


def test_the_overview(open_page):
    page = open_page()
    page.get_by_role("button", name="569 segments").click()
    facts = page.locator(".facts > div")
    expect(facts.filter(has_text="Transcripts")).to_have_text("Transcripts353")
    expect(facts.filter(has_text="Frames")).to_have_text("Frames132")
    expect(facts.filter(has_text="Clips")).to_have_text("Clips84")
    expect(facts.filter(has_text="Model")).to_have_text("Modelall-MiniLM-L6-v2384 dimensions")
    expect(facts.filter(has_text="Encoders")).to_have_text("Encoders1running")
    expect(facts.filter(has_text="Ingest")).to_contain_text("last write")
    expect(facts.filter(has_text="Health")).to_have_text("Healthhealthy")
    row = page.get_by_role("row", name=re.compile("^Transcripts"))
    expect(row).to_have_text("Transcriptsflat353readyexact")


def test_the_overview_shows_builds_and_ingest(open_page, writer):
    stats = writer.get("/stats").json()
    stats["last_write"] = stats["timestamp"]
    stats["indices"]["clip"] |= {"type": "pq", "building": True, "build_progress": 0.42}
    page = open_page(path=None)
    page.route("**/stats", lambda route: route.fulfill(json=stats))
    page.goto("/")
    page.get_by_role("button", name="569 segments, storing").click()
    expect(page.locator(".facts")).to_contain_text("Ingestin progresslast write 0 s ago")
    expect(page.get_by_role("row", name=re.compile("^Clips"))).to_contain_text("building, 42 %")


def test_its_light_is_that_of_the_health_check(open_page):
    page = open_page(path=None)
    sick = {"status": "unhealthy", "reason": "The encoder is gone"}
    page.route("**/health", lambda route: route.fulfill(status=503, json=sick))
    page.goto("/")
    expect(page.locator("#light")).to_have_class("light good")
    page.get_by_role("button", name="569 segments").click()
    expect(page.get_by_role("button", name="569 segments, unhealthy")).to_be_visible()
    expect(page.locator("#light")).to_have_class("light bad")
    health = page.locator(".facts > div").filter(has_text="Health")
    expect(health).to_have_text("HealthunhealthyThe encoder is gone")
    page.unroute("**/health")
    expect(health).to_have_text("Healthhealthy")
    expect(page.locator("#light")).to_have_class("light good")


def test_where_transcripts_have_no_text_frames_are_searched(open_page):
    page = open_page(path=None)

    def with_own_vectors(route):
        answer = route.fetch()
        body = answer.text().replace('content="transcript frame clip"', 'content="frame clip"')
        route.fulfill(response=answer, body=body)

    page.route(re.compile(r"/(\?.*)?$"), with_own_vectors)
    for path in ("/", at(type="transcript")):
        page.goto(path)
        expect(page.get_by_label("Frames")).to_be_checked()
        expect(page.get_by_label("Transcripts")).to_be_disabled()
    with page.expect_request("**/search") as sent:
        box(page).fill("stop loss")
    assert sent.value.post_data_json["embedding_type"] == "frame"
    expect(hits(page).first).to_be_visible()
