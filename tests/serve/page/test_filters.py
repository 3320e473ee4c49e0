"""Filters, and the URL that has them."""

import re

import pytest
from playwright.sync_api import expect

from tests.serve.page.pages import at, box, hits, show_filters, state_of

pytestmark = pytest.mark.usefixtures("samples")


def test_filters(open_page):
    page = open_page(path=at(q="moving average"))
    expect(hits(page).first).to_be_visible()
    show_filters(page)
    page.get_by_label("Media items separated").fill("102, 105")
    page.get_by_label("From", exact=True).fill("0:30")
    page.get_by_label("To", exact=True).fill("120")
    page.get_by_label("Minimum similarity").fill("0.2")
    page.get_by_label("Results at most").select_option("5")
    page.get_by_label("Metadata").fill("speaker=Instructor")
    with page.expect_request("**/search") as sent:
        page.get_by_label("Metadata").press("Enter")
    assert sent.value.post_data_json["filter"] == {
        "media_item_id": {"$in": ["102", "105"]},
        "$time": {"from": 30, "to": 120},
        "speaker": {"$in": ["Instructor"]},
    }
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("article h2", has_text="101")).to_have_count(0)
    assert page.locator("article h2").all_text_contents()[0] == "Media item 102"
    assert hits(page).count() <= 5
    chips = page.get_by_label("Filters in force").get_by_role("listitem")
    assert [text.removesuffix("×") for text in chips.all_text_contents()] == [
        "similarity ≥ 0.20",
        "media item 102, 105",
        "from 0:30 to 120",
        "speaker=Instructor",
    ]
    assert state_of(page) == {
        "q": ["moving average"],
        "media_item_id": ["102", "105"],
        "from": ["0:30"],
        "to": ["120"],
        "min": ["0.2"],
        "k": ["5"],
        "meta": ["speaker=Instructor"],
    }
    page.get_by_role("button", name="Remove media item 102, 105").click()
    expect(chips).to_have_count(3)
    page.get_by_role("button", name="Clear filters").click()
    expect(chips).to_have_count(0)
    page.get_by_label("Metadata").fill("speaker")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_contain_text("a name, = and a value")


def test_a_time_that_is_none_is_not_searched(open_page):
    page = open_page(path=at(q="candle", **{"from": "soon"}))
    expect(page.get_by_label("Filters in force")).to_contain_text("from soon")
    show_filters(page)
    expect(page.get_by_label("From", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(hits(page)).to_have_count(0)
    expect(page.locator("#notice")).to_contain_text("“soon” is no time")


def test_back_and_sharing(open_page):
    page = open_page()
    box(page).fill("candle")
    box(page).press("Enter")
    expect(hits(page).first).to_be_visible()
    box(page).fill("how much should I risk on a trade?")
    expect(page).to_have_title(re.compile("how much"))
    page.get_by_role("radio", name="Clips").check()
    page.get_by_role("radio", name="Hybrid").check()
    expect(hits(page).first.locator(".scores")).to_contain_text("BM25")
    found = hits(page).locator(".said").all_text_contents()
    shared = open_page(path=page.url)
    expect(shared.get_by_label("Clips")).to_be_checked()
    expect(hits(shared).locator(".said")).to_have_text(found)
    page.go_back()
    expect(page.get_by_label("Semantic")).to_be_checked()
    page.go_back()
    expect(page.get_by_label("Transcripts")).to_be_checked()
    expect(box(page)).to_have_value("how much should I risk on a trade?")
    page.go_back()
    expect(box(page)).to_have_value("candle")
    expect(hits(page).first).to_be_visible()
    page.go_forward()
    expect(box(page)).to_have_value("how much should I risk on a trade?")


def test_media_items_with_commas_and_spaces_in_their_ids(open_page, store):
    comma, spaces, quote = "Lesson 1, part 2", " outer spaces ", '"quoted", she said'
    for media_item_id in (comma, spaces, quote):
        store(media_item_id, [{"id": 1, "text": f"The platypus of {media_item_id}"}])
    page = open_page(path=at(q="platypus", mode="keyword"))
    expect(page.locator("article")).to_have_count(3)
    page.get_by_role("button", name=f"Only media item {comma}").click()
    expect(page.locator("article h2")).to_have_text([f"Media item {comma}"])
    assert state_of(page)["media_item_id"] == [comma]
    show_filters(page)
    field = page.get_by_label("Media items separated")
    expect(field).to_have_value(f'"{comma}"')
    typed = f'"{comma}",101 , "{spaces}", """quoted"", she said"'
    with page.expect_request("**/search") as sent:
        field.fill(typed)
        field.press("Enter")
    wanted = [comma, "101", spaces, quote]
    assert sent.value.post_data_json["filter"] == {"media_item_id": {"$in": wanted}}
    expect(page.locator("article")).to_have_count(3)
    assert state_of(page)["media_item_id"] == wanted
    expect(field).to_have_value(f'"{comma}", 101, "{spaces}", """quoted"", she said"')
    offered = page.locator("#media-items option").evaluate_all("all => all.map(one => one.value)")
    assert {f'"{comma}"', f'"{spaces}"', "101"} <= set(offered)
    again = open_page(path=page.url)
    expect(again.locator("article")).to_have_count(3)


def test_addresses_of_before_have_media_items_as_they_are_typed(open_page):
    page = open_page(path=at(q="moving average", media="102, 105"))
    chip = page.get_by_label("Filters in force").get_by_role("listitem")
    expect(chip).to_contain_text("media item 102, 105")
    expect(page.locator("article h2").first).to_have_text("Media item 102")
    expect(page.locator("article h2", has_text="101")).to_have_count(0)


def test_metadata_does_not_add_to_the_media_items(open_page):
    page = open_page(path=at(q="stop loss", media="101", meta="media_item_id=102"))
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    page.get_by_role("button", name="Remove media_item_id=102").click()
    expect(page.locator("article h2")).to_have_text("Media item 101")
    page.goto(at(q="stop loss", meta=["media_item_id=101", "media_item_id=102"]))
    expect(page.locator("article")).to_have_count(2)


@pytest.mark.parametrize("words", ["a stock that is overbought ", "股票超买"])
def test_a_query_too_long_for_an_address_is_kept_with_the_tab(open_page, words):
    query = (words * 1000)[:9_000]
    page = open_page(path=at(q="candle"))
    expect(hits(page).first).to_be_visible()
    box(page).fill(query)
    note = page.get_by_text("too long for the page's address")
    expect(note).to_be_visible()
    box(page).press("Enter")
    page.get_by_role("radio", name="Clips").check()
    assert state_of(page) == {"type": ["clip"]}
    expect(hits(page).first).to_be_visible()
    page.reload()
    expect(box(page)).to_have_value(query)
    expect(hits(page).first.locator(".type")).to_have_count(0)
    expect(page.get_by_label("Clips")).to_be_checked()
    page.go_back()
    expect(page.get_by_label("Transcripts")).to_be_checked()
    expect(box(page)).to_have_value(query)
    page.go_back()
    expect(box(page)).to_have_value("candle")
    expect(note).to_be_hidden()
