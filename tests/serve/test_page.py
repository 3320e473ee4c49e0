"""The search page in a real browser, over a service with API keys and the samples."""

import json
import re
import shlex
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
import requests
from playwright.sync_api import expect

from deployments.client import Client
from deployments.samples import load_samples
from tests.serve.browser import serious
from tests.serve.service import ROOT, Service

KEY = "a-read-only-key-of-the-page"
FULL_KEY = "a-full-key-of-the-page-tests"
QUESTION = "when is a stock overbought?"
ANSWER = "So when is a stock overbought?"
NASTY = "<img src=x onerror=alert(1)>"
ENVIRONMENT = {
    "EMBEDDINGS_API_KEY": FULL_KEY,
    "EMBEDDINGS_READ_ONLY_API_KEY": KEY,
    "MEDIA_URL_TEMPLATE": "https://player.example/watch?v={media_item_id}&t={start_time}",
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    service = Service(tmp_path_factory.mktemp("page"), environment=ENVIRONMENT)
    with service as running:
        yield running


@pytest.fixture(scope="module")
def writer(guarded):
    with httpx.Client(base_url=guarded.url, headers={"X-API-Key": FULL_KEY}, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def samples(guarded):
    with Client(guarded.url, FULL_KEY) as client:
        load_samples(client, ROOT / "data/samples")


@pytest.fixture
def open_page(browser, guarded):
    """Opens pages that have the key, and looks at the end for what their consoles complain of."""
    contexts, complaints = [], []

    def complain(message):
        # What a refused request leaves there is no fault of the page.
        if message.type in ("error", "warning") and "Failed to load" not in message.text:
            complaints.append(message.text)

    def opened(*, key=KEY, path="/", **options):
        context = browser.new_context(
            base_url=guarded.url, permissions=["clipboard-read", "clipboard-write"], **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", complain)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if key is not None:
            page.add_init_script(f"sessionStorage.setItem('embeddings-api-key', '{key}')")
        if path is not None:
            page.goto(path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def at(**state):
    return f"/?{urlencode(state, doseq=True)}"


def state_of(page):
    return parse_qs(urlsplit(page.url).query)


def hits(page):
    return page.locator(".hit")


def box(page):
    return page.get_by_role("searchbox", name="What to look for")


def show_filters(page):
    page.get_by_role("button", name="Filters", exact=False).first.click()


def test_an_empty_store_says_how_to_begin(open_page):
    page = open_page()
    expect(page.get_by_role("heading", name="Nothing is stored yet")).to_be_visible()
    expect(page.get_by_role("button", name="0 segments")).to_be_visible()


@pytest.mark.usefixtures("samples")
class TestSamples:
    def test_the_lesson_that_answers_comes_first_with_its_time(self, open_page):
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

    def test_results_come_as_one_types_and_those_that_come_late_are_dropped(self, open_page):
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

    def test_filters(self, open_page):
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
            "media": ["102, 105"],
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

    def test_a_time_that_is_none_is_not_searched(self, open_page):
        page = open_page(path=at(q="candle", **{"from": "soon"}))
        expect(page.get_by_label("Filters in force")).to_contain_text("from soon")
        show_filters(page)
        expect(page.get_by_label("From", exact=True)).to_have_attribute("aria-invalid", "true")
        expect(hits(page)).to_have_count(0)
        expect(page.locator("#notice")).to_contain_text("“soon” is no time")

    def test_what_is_typed_stays_when_something_else_is_chosen_at_once(self, open_page):
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

    def test_nothing_found(self, open_page):
        page = open_page(path=at(q="zzzqqq", mode="keyword"))
        expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
        page.get_by_role("button", name="Search by meaning too").click()
        expect(hits(page).first).to_be_visible()
        expect(page.get_by_label("Hybrid")).to_be_checked()

    def test_errors_are_shown_as_the_service_tells_them(self, open_page):
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

    def test_without_a_key_it_asks_for_one(self, open_page):
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

    def test_offline_and_back(self, open_page):
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

    def test_keyboard(self, open_page):
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

    def test_back_and_sharing(self, open_page):
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

    def test_all_types_in_one_timeline(self, open_page):
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

    def test_context_on_demand(self, open_page):
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

    def test_copies_do_the_same_search(self, open_page, guarded):
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

    def test_the_overview(self, open_page):
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

    def test_the_overview_shows_builds_and_ingest(self, open_page, writer):
        stats = writer.get("/stats").json()
        stats["last_write"] = stats["timestamp"]
        stats["indices"]["clip"] |= {"type": "pq", "building": True, "build_progress": 0.42}
        page = open_page(path=None)
        page.route("**/stats", lambda route: route.fulfill(json=stats))
        page.goto("/")
        page.get_by_role("button", name="569 segments, storing").click()
        expect(page.locator(".facts")).to_contain_text("Ingestin progresslast write 0 s ago")
        expect(page.get_by_role("row", name=re.compile("^Clips"))).to_contain_text("building, 42 %")

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_accessibility(self, open_page, scheme):
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

    def test_a_phone_and_less_motion(self, open_page):
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


def test_what_is_stored_is_shown_as_text(open_page, writer):
    text = f"😀😀 the overbought 𝒳 market {NASTY}"
    segment = {"id": NASTY, "text": text, "start_time": 3725, "speaker": NASTY, "<b>": [NASTY]}
    body = {"media_item_id": NASTY, "embedding_type": "clip", "segments": [segment]}
    writer.post("/embed", json=body).raise_for_status()
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
