"""How the search page is served; what it does is tested in a browser."""

import re
from html import unescape

import pytest
from fastapi.testclient import TestClient
from test_ingress import URL, RecordingBackend

from deployments.core.settings import Settings
from deployments.rest import page_routes
from deployments.rest.application import create_app
from deployments.rest.secure_headers import PAGES

TEMPLATE = 'https://player.example/watch?v={media_item_id}&t={start_time}&"x"'


def serve(**settings):
    return TestClient(create_app(RecordingBackend(), Settings(**settings)), URL)


def test_the_page_and_all_that_it_names_come_from_here():
    client = serve()
    waiting, seen = set(), set()
    for path in ("/", "/guide"):
        page = client.get(path)
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert {name: page.headers[name] for name in PAGES} == PAGES
        assert not re.search(r"<script(?! type=\"module\" src=)|<style|style=|\son\w+=", page.text)
        waiting |= {*re.findall(r'(?:src|href)="(?:\./)?(web/[^"]+)"', page.text)}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        answer = client.get(f"/{name}")
        assert answer.status_code == 200, name
        assert "//" not in re.sub(r"(?m)^\s*//.*$|http://www.w3.org/2000/svg", "", answer.text)
        waiting |= {f"web/{other}" for other in re.findall(r'from "\./(.+?)"', answer.text)} - seen
    kept = {f"web/{path.name}" for path in page_routes.FOLDER.iterdir() if path.is_file()}
    assert seen == kept - {"web/page.html", "web/guide.html"}


def test_the_template_of_links_is_text_in_the_page():
    page = serve(media_url_template=TEMPLATE).get("/").text
    (content,) = re.findall(r'<meta name="media-url-template" content="(.*?)">', page)
    assert unescape(content) == TEMPLATE
    assert 'name="media-url-template" content=""' in serve().get("/").text


def test_the_page_knows_what_a_text_can_be_compared_with():
    assert 'name="searchable-types" content="transcript frame clip"' in serve().get("/").text
    page = serve(embedding_model_frame="external:512").get("/").text
    assert 'name="searchable-types" content="transcript clip"' in page


@pytest.mark.parametrize("path", ["/", "/web/page.js"])
def test_a_browser_asks_each_time_and_gets_it_once(path):
    client = serve()
    first = client.get(path)
    assert first.headers["Cache-Control"] == "no-cache"
    tag = first.headers["ETag"]
    again = client.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert client.get(path, headers={"If-None-Match": '"other"'}).content == first.content
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(first.content))


def test_what_changes_has_another_tag():
    with_links = serve(media_url_template="/watch/{media_item_id}").get("/")
    assert with_links.headers["ETag"] != serve().get("/").headers["ETag"]


@pytest.mark.parametrize("path", ["/web/nothing.js", "/web/..%2Fapp.py", "/web/", "/web/a/b"])
def test_nothing_else_is_served(path):
    answer = serve().get(path, follow_redirects=False)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
