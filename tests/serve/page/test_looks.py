"""For everybody: contrast, names for screen readers, phones, times of any size."""

import re

import pytest
from playwright.sync_api import expect

from tests.serve.browser import serious
from tests.serve.page.pages import QUESTION, at, hits, show_filters

pytestmark = pytest.mark.usefixtures("samples")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(open_page, scheme):
    page = open_page(path=at(q=QUESTION, type="all", mode="hybrid"), color_scheme=scheme)
    expect(hits(page).first).to_be_visible()
    hits(page).first.get_by_role("button", name="Context").click()
    expect(hits(page).first.locator(".neighbour").first).to_be_visible()
    assert serious(page) == []
    page.get_by_role("button", name=re.compile("segments")).click()
    show_filters(page)
    page.get_by_label("Metadata").fill("tags=rsi")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_label("Filters in force")).to_contain_text("tags=rsi")
    expect(page.locator(".facts")).to_contain_text("healthy")
    expect(page.locator("#progress")).to_be_hidden()
    assert serious(page) == []
    for path in (at(q="zzzqqq", mode="keyword"), at(q="x", **{"from": "9", "to": "1"}), "/"):
        page.goto(path)
        expect(page.locator(".notice")).to_be_visible()
        assert serious(page) == []
    locked = open_page(key=None, path=at(q="x"), color_scheme=scheme)
    expect(locked.get_by_label("API key")).to_be_visible()
    assert serious(locked) == []


def test_a_phone_and_less_motion(open_page):
    page = open_page(
        path=at(q=QUESTION, type="all", mode="hybrid", meta="speaker=Instructor", min="0.1"),
        viewport={"width": 360, "height": 740},
        reduced_motion="reduce",
    )
    expect(hits(page).first).to_be_visible()
    hits(page).first.get_by_role("button", name="Context").click()
    page.get_by_role("button", name=re.compile("segments")).click()
    show_filters(page)
    expect(page.locator(".facts")).to_contain_text("healthy")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for name in (".said", ".scores", ".time", "#query", "#media", ".facts"):
        shown = page.locator(name).first.bounding_box()
        assert shown["x"] >= 0
        assert shown["x"] + shown["width"] <= 360
    moving = "getComputedStyle(document.getElementById('progress'), '::after').animationName"
    assert page.evaluate(moving) == "none"


@pytest.mark.parametrize("width", [320, 360])
def test_long_names_of_metadata_break_on_a_phone(open_page, store, width):
    name = "original_video_file_path_in_bucket_before_transcoding_" * 2
    store("names", [{"id": 1, "text": "Capybara", name: "s3://bucket", "k": "v" * 200}])
    page = open_page(
        path=at(q="capybara", mode="keyword", media="names"),
        viewport={"width": width, "height": 740},
    )
    expect(hits(page).locator(".further dt").first).to_have_text(name)
    assert page.evaluate("document.documentElement.scrollWidth") == width
