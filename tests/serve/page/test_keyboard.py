"""The page without a mouse."""

import pytest
from playwright.sync_api import expect

from tests.serve.page.pages import QUESTION, at, box, hits, show_filters

pytestmark = pytest.mark.usefixtures("samples")


def test_keyboard(open_page):
    page = open_page(path=at(q=QUESTION))
    expect(hits(page).first).to_be_visible()
    page.get_by_role("link", name="API").focus()
    page.keyboard.press("/")
    expect(box(page)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(hits(page).first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(hits(page).nth(1)).to_be_focused()
    outline = hits(page).nth(1).evaluate("hit => getComputedStyle(hit).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Tab")
    expect(hits(page).nth(1).get_by_role("link")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(hits(page).nth(1).locator(".neighbours")).to_be_visible()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(box(page)).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    expect(box(page)).to_be_focused()
    page.keyboard.press("Escape")
    expect(box(page)).to_have_value("")
    expect(hits(page)).to_have_count(0)
    show_filters(page)
    page.get_by_label("Media items separated").press("Escape")
    expect(page.locator("#filters")).to_be_hidden()
    expect(page.locator("#filters-toggle")).to_be_focused()


def test_the_focus_stays_with_what_is_found(open_page):
    page = open_page(path=at(q="stop loss", k=5))
    more = page.get_by_role("button", name="Show up to 10")
    expect(more).to_be_visible()
    known = set(hits(page).locator(".said").all_text_contents())
    more.press("Enter")
    expect(page.locator(".hit:focus")).to_have_count(1)
    expect(page.get_by_label("Results at most")).to_have_value("10")
    said = hits(page).locator(".said").all_text_contents()
    first_new = next(text for text in said if text not in known)
    expect(page.locator(".hit:focus .said")).to_have_text(first_new)
    page.get_by_role("button", name="Only media item").first.press("Enter")
    expect(page.locator("article")).to_have_count(1)
    expect(hits(page).first).to_be_focused()
    page.goto(at(q="stop loss", meta="speaker=Nobody"))
    page.locator("#notice").get_by_role("button", name="Clear filters").press("Enter")
    expect(hits(page).first).to_be_focused()
    page.goto(at(q="zzzqqq", mode="keyword", meta="speaker=Nobody"))
    page.locator("#notice").get_by_role("button", name="Clear filters").press("Enter")
    expect(page.locator("#notice").get_by_role("button")).to_have_count(2)
    expect(page.locator("#notice").get_by_role("button").first).to_be_focused()
    page.route("**/search", lambda route: route.abort())
    page.locator("#notice").get_by_role("button").first.press("Enter")
    expect(page.get_by_role("button", name="Try again")).to_be_focused()
    page.unroute("**/search")
    page.route("**/search", lambda route: route.fulfill(status=422, json={"detail": "no"}))
    page.get_by_role("button", name="Try again").press("Enter")
    expect(box(page)).to_be_focused()


def test_keys_of_an_input_method_are_left_to_it(open_page):
    page = open_page(path=at(q=QUESTION))
    expect(hits(page).first).to_be_visible()
    show_filters(page)
    left = page.evaluate(
        """() => {
            const press = (id, key) => {
                const event = { key, bubbles: true, cancelable: true, isComposing: true };
                const element = document.getElementById(id);
                element.focus();
                return element.dispatchEvent(new KeyboardEvent("keydown", event))
                    && document.activeElement === element;
            };
            return [
                press("query", "ArrowDown"), press("query", "Escape"),
                press("meta", "Enter"), press("meta", "Escape"),
            ];
        }"""
    )
    assert left == [True] * 4
    expect(box(page)).to_have_value(QUESTION)
    expect(page.locator("#filters")).to_be_visible()
    expect(page.locator("#meta-problem")).to_be_hidden()
