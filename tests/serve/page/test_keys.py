"""API keys, which the page asks for and keeps."""

import re

import pytest
from playwright.sync_api import expect

from tests.serve.page.pages import ANSWER, KEY, QUESTION, at, box, hits

pytestmark = pytest.mark.usefixtures("samples")


def test_without_a_key_it_asks_for_one(open_page):
    page = open_page(key=None, path=at(q=QUESTION))
    expect(page.get_by_role("heading", name="This service needs an API key")).to_be_visible()
    expect(page.get_by_role("button", name="Locked")).to_be_visible()
    page.get_by_label("API key").fill("not-one-of-the-keys")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="This key isn't one of")).to_be_visible()
    expect(page.get_by_label("API key")).to_be_focused()
    page.get_by_label("API key").fill(KEY)
    page.get_by_label("API key").press("Enter")
    expect(hits(page).first).to_contain_text(ANSWER)
    page.get_by_role("button", name=re.compile("segments")).click()
    page.get_by_role("button", name="Forget the API key").click()
    expect(page.get_by_role("heading", name="This service needs an API key")).to_be_visible()
    page.goto("/")
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="Where was it said")).to_be_visible()


def kept_key(page):
    return page.evaluate("sessionStorage.getItem('embeddings-api-key')")


def test_what_can_be_no_key_is_not_kept(open_page):
    page = open_page(key=None, path=at(q=QUESTION))
    page.get_by_label("API key").fill("ключ-от-страницы-поиска")
    page.get_by_label("API key").press("Enter")
    alert = page.get_by_role("alert").filter(has_text="A key has letters from A to Z")
    expect(alert).to_be_visible()
    expect(page.get_by_label("API key")).to_be_focused()
    expect(page.get_by_label("API key")).to_have_attribute("aria-invalid", "true")
    assert kept_key(page) is None
    page.get_by_label("API key").fill(KEY)
    page.get_by_label("API key").press("Enter")
    expect(hits(page).first).to_contain_text(ANSWER)
    assert kept_key(page) == KEY


def test_a_kept_key_that_no_request_can_carry_is_forgotten(open_page):
    page = open_page(key="ключ-от-страницы-поиска", path=at(q=QUESTION))
    expect(page.get_by_label("API key")).to_be_visible()
    assert kept_key(page) is None


def test_a_key_can_be_forgotten_while_the_service_is_away(open_page):
    page = open_page(path=None)
    page.route("**/stats", lambda route: route.abort("connectionrefused"))
    page.goto("/")
    page.get_by_role("button", name="Not available").click()
    expect(page.get_by_role("button", name="Forget the API key")).to_be_visible()
    page.unroute("**/stats")
    page.evaluate("sessionStorage.clear()")
    page.get_by_role("button", name="Not available").click()
    page.get_by_role("button", name="Not available").click()
    expect(page.get_by_role("button", name="Locked")).to_be_visible()
    expect(page.get_by_role("button", name="Forget the API key")).to_be_hidden()


def test_the_key_form_stays_while_the_query_changes(open_page):
    page = open_page(key=None, path=at(q=QUESTION))
    expect(page.get_by_label("API key")).to_be_visible()
    box(page).press("Escape")
    expect(page).to_have_url(re.compile("/$"))
    expect(page.get_by_label("API key")).to_be_visible()
    box(page).fill("candle")
    expect(page).to_have_url(re.compile("q=candle$"))
    expect(page.locator("#progress")).to_be_hidden()
    page.get_by_label("API key").fill("not-one-of-the-keys")
    box(page).fill("")
    expect(page).to_have_url(re.compile("/$"))
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="This key isn't one of")).to_be_visible()
    page.get_by_label("API key").fill(KEY)
    page.get_by_label("API key").press("Enter")
    expect(page.get_by_role("heading", name="Where was it said")).to_be_visible()
