"""What the page finds, and how it shows it."""

import json
import re
import shlex

import pytest
import requests
from playwright.sync_api import expect

from tests.serve.page.pages import ANSWER, KEY, QUESTION, at, box, hits, state_of

NASTY = "<img src=x onerror=alert(1)>"

pytestmark = pytest.mark.usefixtures("samples")


def test_the_lesson_that_answers_comes_first_with_its_time(open_page):
    page = open_page()
    expect(box(page)).to_be_focused()
    box(page).fill(QUESTION)
    box(page).press("Enter")
    expect(page.locator("article").first.get_by_role("heading")).to_have_text("Media item 101")
    first = hits(page).first
    expect(first.locator(".said")).to_contain_text(ANSWER)
    expect(first.locator("mark")).to_have_text(["stock overbought"])
    expect(first.locator(".scores")).to_have_text("Similarity0.81")
    link = first.get_by_role("link", name="Play media item 101 at 00:37 – 00:46")
    expect(link).to_have_attribute("href", "https://player.example/watch?v=101&t=37")
    timeline = page.locator(".track").first
    expect(timeline).to_have_attribute("aria-label", re.compile("from 00:00 to 04:3[0-9]$"))
    whole, shown = timeline.bounding_box(), timeline.locator(".span").first.bounding_box()
    starts = (shown["x"] - whole["x"]) / whole["width"]
    assert starts == pytest.approx(37.3 / 275.2, abs=0.01)
    assert shown["width"] / whole["width"] == pytest.approx(9.4 / 275.2, abs=0.01)
    timeline.locator(".span").nth(1).click()
    expect(hits(page).nth(1)).to_be_focused()


def test_results_come_as_one_types_and_those_that_come_late_are_dropped(open_page):
    page = open_page()
    failed, held = [], []
    page.on("requestfailed", lambda request: failed.append(request.post_data_json["query"]))

    def hold(route):
        if route.request.post_data_json["query"] == "candle":
            held.append(route)
        else:
            route.continue_()

    page.route("**/search", hold)
    with page.expect_request("**/search"):
        box(page).press_sequentially("candle")
    expect(page.locator("#progress")).to_be_visible()
    box(page).fill(QUESTION)
    expect(hits(page).first).to_contain_text(ANSWER)
    expect(page.locator("#progress")).to_be_hidden()
    assert (len(held), failed[-1]) == (1, "candle")
    assert state_of(page)["q"] == [QUESTION]
    expect(page).to_have_title(f"{QUESTION} – Search")


def test_what_is_typed_stays_when_something_else_is_chosen_at_once(open_page):
    page = open_page(path=at(q="candle"))
    expect(hits(page).first).to_be_visible()
    page.evaluate(
        """question => {
            const box = document.getElementById("query");
            box.value = question;
            box.dispatchEvent(new Event("input"));
            document.querySelector("[value=keyword]").click();
        }""",
        QUESTION,
    )
    expect(hits(page).first.locator("mark")).to_have_text(["stock", "overbought"])
    assert (state_of(page)["q"], state_of(page)["mode"]) == ([QUESTION], ["keyword"])


def test_nothing_found(open_page):
    page = open_page(path=at(q="zzzqqq", mode="keyword"))
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    page.get_by_role("button", name="Search by meaning too").click()
    expect(hits(page).first).to_be_visible()
    expect(page.get_by_label("Hybrid")).to_be_checked()


def test_all_types_in_one_timeline(open_page):
    page = open_page(path=at(q=QUESTION, type="all", mode="hybrid", k=50))
    group = page.locator("article", has=page.get_by_role("heading", name="Media item 101"))
    group.get_by_role("button", name=re.compile("more here")).click()
    assert set(group.locator(".type").all_text_contents()) == {"Transcript", "Frame", "Clip"}
    assert group.locator(".span").count() == group.locator(".hit").count()
    expect(group.locator(".track")).to_have_class("track lanes")
    page.get_by_role("button", name="Show up to 100").click()
    expect(page.get_by_label("Results at most")).to_have_value("100")
    page.get_by_role("button", name="Only media item 101").click()
    expect(page.locator("article")).to_have_count(1)


def test_context_on_demand(open_page):
    page = open_page(path=at(q=QUESTION))
    first = hits(page).first
    expect(first.locator(".neighbours")).to_be_hidden()
    first.get_by_role("button", name="Context").click()
    shown = first.locator(".neighbour")
    expect(shown).to_have_count(5)
    assert [line[:5] for line in shown.all_text_contents()] == [
        "00:18",
        "00:28",
        "00:37",
        "00:46",
        "00:56",
    ]
    expect(shown.nth(2)).to_contain_text(ANSWER)


def test_copies_do_the_same_search(open_page, guarded):
    page = open_page(path=at(q='what\'s a "stop" $HOME?', type="all", k=5))
    expect(hits(page).first).to_be_visible()
    page.get_by_role("button", name="Copy JSON").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    answer = json.loads(page.evaluate("navigator.clipboard.readText()"))
    page.get_by_role("button", name="Copy curl").click()
    expect(page.get_by_role("button", name="Copied")).to_have_count(2)
    command = page.evaluate("navigator.clipboard.readText()")
    name, _, url, _, key, _, content, _, body = shlex.split(command)
    assert (name, url) == ("curl", f"{guarded.url}/search/batch")
    assert key == "X-API-Key: $EMBEDDINGS_API_KEY"
    headers = dict([content.split(": "), ("X-API-Key", KEY)])
    again = requests.post(url, data=body, headers=headers, timeout=60).json()
    assert [each["query"] for each in again["responses"]] == ['what\'s a "stop" $HOME?'] * 3
    assert [each["results"] for each in again["responses"]] == [
        each["results"] for each in answer["responses"]
    ]


def test_what_is_stored_is_shown_as_text(open_page, store):
    text = f"😀😀 the overbought 𝒳 market {NASTY}"
    segment = {"id": NASTY, "text": text, "start_time": 3725, "speaker": NASTY, "<b>": [NASTY]}
    store(NASTY, [segment], "clip")
    page = open_page(path=at(q="markets overbought", type="clip", media=NASTY, mode="keyword"))
    expect(page.locator("article h2")).to_have_text(f"Media item {NASTY}")
    expect(hits(page).locator(".said")).to_have_text(text)
    expect(hits(page).locator("mark")).to_have_text(["overbought", "market"])
    expect(hits(page).locator(".further dt")).to_have_text(["speaker", "<b>"])
    link = hits(page).get_by_role("link")
    expect(link).to_have_text(re.compile("1:02:05$"))
    quoted = "%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"
    expect(link).to_have_attribute("href", f"https://player.example/watch?v={quoted}&t=3725")
    expect(page.locator("main img")).to_have_count(0)
