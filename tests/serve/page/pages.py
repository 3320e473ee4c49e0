"""What the tests of the search page look for in it."""

from urllib.parse import parse_qs, urlencode, urlsplit

KEY = "a-read-only-key-of-the-page"
FULL_KEY = "a-full-key-of-the-page-tests"
ENVIRONMENT = {
    "EMBEDDINGS_API_KEY": FULL_KEY,
    "EMBEDDINGS_READ_ONLY_API_KEY": KEY,
    "MEDIA_URL_TEMPLATE": "https://player.example/watch?v={media_item_id}&t={start_time}",
}
QUESTION = "when is a stock overbought?"
ANSWER = "So when is a stock overbought?"


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
