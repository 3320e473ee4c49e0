"""What the page shows instead of results."""

import pytest
from playwright.sync_api import expect

from tests.serve.page.pages import ANSWER, QUESTION, at, box, hits

pytestmark = pytest.mark.usefixtures("samples")


def test_errors_are_shown_as_the_service_tells_them(open_page):
    page = open_page(path=at(q="candle", **{"from": "50", "to": "10"}))
    alert = page.get_by_role("alert").filter(has_text="Invalid input")
    expect(alert).to_contain_text("filter.$time ends (10) before it begins (50)")
    expect(alert).to_contain_text("Status 422, code invalid_input")
    expect(alert.get_by_role("button")).to_have_count(0)
    problem = {"title": "Too busy", "status": 429, "detail": "wait", "code": "overloaded"}
    page.route("**/search", lambda route: route.fulfill(status=429, json=problem))
    page.get_by_role("button", name="Remove from 50 to 10").click()
    expect(alert.or_(page.get_by_role("alert").filter(has_text="Too busy"))).to_be_visible()
    page.unroute("**/search")
    page.get_by_role("button", name="Try again").click()
    expect(hits(page).first).to_be_visible()
    page.route("**/search", lambda route: route.fulfill(status=502, body="<h1>Bad gateway"))
    box(page).press("Enter")
    expect(page.get_by_role("alert").filter(has_text="answered 502")).to_be_visible()


def test_offline_and_back(open_page):
    page = open_page()
    page.context.set_offline(True)
    box(page).fill(QUESTION)
    expect(page.get_by_role("heading", name="You are offline")).to_be_visible()
    expect(page.get_by_role("button", name="Not available")).to_be_visible()
    page.context.set_offline(False)
    expect(hits(page).first).to_contain_text(ANSWER)
    page.route("**/search", lambda route: route.abort("connectionrefused"))
    box(page).press("Enter")
    expect(page.get_by_role("heading", name="The service can't be reached")).to_be_visible()


def test_an_empty_store_says_how_to_begin(open_page, writer):
    nothing = writer.get("/stats").json() | {"total_vectors": 0}
    page = open_page(path=None)
    page.route("**/stats", lambda route: route.fulfill(json=nothing))
    page.goto("/")
    expect(page.get_by_role("heading", name="Nothing is stored yet")).to_be_visible()
    expect(page.get_by_role("button", name="0 segments")).to_be_visible()
    page.get_by_role("link", name="How to store them").click()
    expect(page.get_by_role("heading", name="API by example")).to_be_visible()


def test_an_answer_that_it_cannot_show_is_no_lost_connection(open_page, complaints):
    page = open_page()
    result = {"metadata": {"media_item_id": 1, "segment_id": 1, "text": "a"}, "similarity": None}
    answer = {"embedding_type": "transcript", "results": [result]}
    page.route("**/search", lambda route: route.fulfill(json=answer))
    box(page).fill("candle")
    alert = page.get_by_role("alert").filter(has_text="The page can't show the answer")
    expect(alert).to_contain_text("TypeError")
    assert "TypeError" in complaints.pop()
    page.unroute("**/search")
    alert.get_by_role("button", name="Try again").click()
    expect(hits(page).first).to_be_visible()


def test_the_docs_page_without_its_script_leads_on(open_page, complaints):
    page = open_page(path=None)
    page.route("https://**/*", lambda route: route.abort())
    page.goto("/docs")
    expect(page.get_by_role("link", name="OpenAPI document")).to_have_attribute(
        "href", "openapi.json"
    )
    page.get_by_role("link", name="API by example").click()
    expect(page.get_by_role("heading", name="API by example")).to_be_visible()
    assert "SwaggerUIBundle is not defined" in complaints.pop()


def test_swagger_replaces_what_the_docs_page_says_without_it(open_page):
    page = open_page(path=None)
    page.route("https://**/*.css", lambda route: route.fulfill(content_type="text/css", body=""))
    script = """
        window.SwaggerUIBundle = ({ url, dom_id }) =>
            document.querySelector(dom_id).replaceChildren(url);
        SwaggerUIBundle.presets = {};
    """
    page.route(
        "https://**/*.js",
        lambda route: route.fulfill(content_type="text/javascript", body=script),
    )
    page.goto("/docs")
    expect(page.locator("body")).to_have_text("openapi.json")
