"""Markdown as HTML that needs no script and no inline style."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_NOT_IN_ANCHORS = re.compile(r"[^\w\- ]")

Resolve = Callable[[str], str | None]
"""Where a link leads, or None if it leads nowhere here: then only its text is kept."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading, and the anchor that links to it name."""

    level: int
    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Document:
    """HTML without a frame, and its headings in order."""

    html: str
    headings: tuple[Heading, ...]


def render(source: str, resolve: Resolve) -> Document:
    """HTML of Markdown: CommonMark with tables, and anchors as GitHub names them."""
    tokens = _MARKDOWN.parse(source)
    found = list(_headings(tokens))
    for token, inline, heading in found:
        token.attrSet("id", heading.anchor)
        inline.children = [*(inline.children or ()), _link_to(heading)]
    for token in tokens:
        if token.type in ("th_open", "td_open") and "style" in token.attrs:
            token.attrs = {"class": str(token.attrs["style"]).removeprefix("text-align:")}
        if token.children:
            token.children = list(_resolved(token.children, resolve))
    html = _Renderer().render(tokens, _MARKDOWN.options, {})
    return Document(html, tuple(heading for _, _, heading in found))


def headings(source: str) -> tuple[Heading, ...]:
    """The headings of Markdown, in order."""
    return tuple(heading for _, _, heading in _headings(_MARKDOWN.parse(source)))


def _headings(tokens: Sequence[Token]) -> Iterator[tuple[Token, Token, Heading]]:
    taken: Counter[str] = Counter()
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            text = "".join(child.content for child in inline.children or ())
            anchor = _NOT_IN_ANCHORS.sub("", text.lower()).replace(" ", "-")
            repeated = taken[anchor]
            taken[anchor] += 1
            unique = f"{anchor}-{repeated}" if repeated else anchor
            yield token, inline, Heading(int(token.tag[1:]), text, unique)


def _link_to(heading: Heading) -> Token:
    label = escape(f"Link to “{heading.text}”")
    return Token(
        "html_inline",
        "",
        0,
        content=f' <a class="anchor" href="#{heading.anchor}" aria-label="{label}">#</a>',
    )


def _resolved(tokens: Sequence[Token], resolve: Resolve) -> Iterator[Token]:
    dropped = False
    for token in tokens:
        if token.type == "link_open":
            target = resolve(str(token.attrs["href"]))
            dropped = target is None
            if target is not None:
                token.attrs["href"] = target
        elif token.type == "image":
            token.attrs["src"] = resolve(str(token.attrs["src"])) or ""
        if not (dropped and token.type in ("link_open", "link_close")):
            yield token


class _Renderer(RendererHTML):
    """Wide things scroll by themselves, also by keyboard."""

    def fence(self, tokens: Sequence[Token], at: int, *_: object) -> str:
        """A block of code."""
        return f'<pre tabindex="0"><code>{escape(tokens[at].content)}</code></pre>\n'

    def table_open(self, *_: object) -> str:
        """A table begins."""
        return '<div class="scroll" tabindex="0"><table>\n'

    def table_close(self, *_: object) -> str:
        """A table ends."""
        return "</table></div>\n"
