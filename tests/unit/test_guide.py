"""The guide's pages: Markdown as HTML, and how it is served."""

import re
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient
from test_ingress import URL, RecordingBackend

from deployments.core.settings import Settings
from deployments.rest.application import create_app
from deployments.rest.guide.markdown import Heading, headings, render
from deployments.rest.guide.pages import Guide
from deployments.rest.secure_headers import PAGES
from tests.documents import GUIDE

NAMES = sorted(path.stem for path in GUIDE.glob("*.md") if path.stem != "index")
PATHS = ["/guide", *(f"/guide/{name}" for name in NAMES)]


@pytest.fixture(scope="module")
def client():
    return TestClient(create_app(RecordingBackend(), Settings()), URL)


def html(source, resolve=lambda link: link):
    return render(source, resolve).html


def test_headings_have_the_anchors_that_github_gives_them():
    source = "# Ray's `A_b` & C\n\n## Scale\n\n### Scale\n\n```\n# not one\n```\n"
    expected = (
        Heading(1, "Ray's A_b & C", "rays-a_b--c"),
        Heading(2, "Scale", "scale"),
        Heading(3, "Scale", "scale-1"),
    )
    assert headings(source) == render(source, str).headings == expected
    page = html(source)
    assert '<h1 id="rays-a_b--c">Ray\'s <code>A_b</code> &amp; C <a class="anchor"' in page
    assert 'href="#scale-1" aria-label="Link to “Scale”">#</a></h3>' in page


def test_columns_are_aligned_without_inline_styles():
    page = html("| a | b |\n|---:|:--|\n| 1 | x |\n")
    assert '<td class="right">1</td>\n<td class="left" data-head="b">x</td>' in page
    assert "style" not in page


def test_tables_with_long_texts_are_told_from_tables_of_numbers():
    first, second = html(
        f"| a | `b` |\n|---|---|\n| 1 | {'x ' * 20}x |\n\ntext\n\n| a | |\n|---|---|\n| 1 | y |\n"
    ).split("text</p>")
    assert '<table class="texts">' in first
    assert 'data-head="b">x x' in first
    assert "<table>" in second
    assert "<td>y</td>" in second


def test_html_in_markdown_is_text():
    page = html('<script>alert(1)</script>\n\n```html\n<img src=x onerror="a()">\n```\n')
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert html('```text "><script>\nx\n```\n').startswith('<pre class="text &quot;&gt;&lt;script')


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "vbscript:x", "data:text/html;base64,PHNjcmlwdD4="]
)
def test_links_run_nothing(link):
    assert "href" not in html(f"[x]({link})")


def test_a_link_that_leads_nowhere_keeps_its_text():
    page = html(
        "See [the `file`](../x.py), and [this](a.md#b).", lambda link: {"a.md#b": "a"}.get(link)
    )
    assert page == '<p>See the <code>file</code>, and <a href="a">this</a>.</p>\n'


def test_pages_come_in_the_order_of_the_index(tmp_path):
    for name, text in {
        "index": "# Contents\n\n[Two](two.md), [one](one.md#x), [two](two.md), ![](a.svg)",
        "one": "# One & all\n\n## X\n\n[back](index.md), [out](../README.md), [up](#x)",
        "two": "# Two\n\n[one](one.md#x), [web](https://example.org/two.md), ![a](a.svg)",
        "three": "# Three",
    }.items():
        (tmp_path / f"{name}.md").write_text(text)
    (tmp_path / "a.svg").write_text("<svg/>")
    (tmp_path / "secret.txt").write_text("no")
    guide = Guide(tmp_path)
    assert guide.titles == {
        "index": "Contents",
        "two": "Two",
        "one": "One & all",
        "three": "Three",
    }
    one = guide.file("one").body.decode()
    assert '<a href="../guide">back</a>, out, <a href="#x">up</a>' in one
    assert '<a href="../guide/one" aria-current="page">One &amp; all</a>\n<ul>' in one
    assert "<title>One &amp; all – Guide</title>" in one
    two = guide.file("two").body.decode()
    assert '<a href="../guide/one#x">one</a>, <a href="https://example.org/two.md">web</a>' in two
    assert '<img src="../guide/a.svg" alt="a" />' in two
    assert '<a href="./guide/one#x">one</a>' in guide.file("index").body.decode()
    assert guide.file("a.svg").body == b"<svg/>"
    assert guide.file("two") is guide.file("two")
    for name in ("secret.txt", "secret", "one.md", "../guide.html", ""):
        assert guide.file(name) is None


@pytest.mark.parametrize("path", PATHS)
def test_a_page_is_whole_and_all_that_it_names_is_there(client, path):
    page = client.get(path)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert {name: page.headers[name] for name in PAGES} == PAGES
    assert not re.search(
        r"<script|<style|style=|\son\w+=", re.sub(r"(?s)<code>.*?</code>", "", page.text)
    )
    assert page.text.count('aria-current="page"') == 1
    for link in re.findall(r'(?:href|src)="([^"]*)"', page.text):
        if link.startswith(("https://", "http://")):
            continue
        target, _, anchor = urljoin(path, link).partition("#")
        answer = client.get(target)
        assert answer.status_code == 200, link
        assert not anchor or f'id="{anchor}"' in answer.text, link


def test_every_markdown_file_is_in_the_navigation(client):
    page = client.get("/guide").text
    assert {*re.findall(r'<li><a href="\./guide/([^"]+)"', page)} == set(NAMES)


def test_a_browser_gets_a_page_once(client):
    first = client.get("/guide/settings")
    tag = first.headers["ETag"]
    again = client.get("/guide/settings", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head("/guide/settings").headers["Content-Length"] == str(len(first.content))


@pytest.mark.parametrize("path", ["/guide/nothing", "/guide/settings.md", "/guide/..%2Fpage.html"])
def test_nothing_else_is_served(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_the_guide_needs_no_key(monkeypatch):
    monkeypatch.setenv("EMBEDDINGS_API_KEY", "a-key-of-this-test-only")
    client = TestClient(create_app(RecordingBackend(), Settings()), "http://example.org")
    assert client.get("/stats").status_code == 401
    assert [client.get(path).status_code for path in PATHS] == [200] * len(PATHS)
    assert client.post("/guide/settings").status_code == 401
