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

LONG_TEXT = 40
"""Characters of a cell that make its table one of texts, which a phone shows below each other."""

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
    for start, end in _tables(tokens):
        _describe_table(tokens[start:end])
    for token in tokens:
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
            text = _text(inline)
            anchor = _NOT_IN_ANCHORS.sub("", text.lower()).replace(" ", "-")
            repeated = taken[anchor]
            taken[anchor] += 1
            unique = f"{anchor}-{repeated}" if repeated else anchor
            yield token, inline, Heading(int(token.tag[1:]), text, unique)


def _text(inline: Token) -> str:
    return "".join(child.content for child in inline.children or ())


def _tables(tokens: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """Where each table begins and ends."""
    ends = [at for at, token in enumerate(tokens) if token.type == "table_close"]
    starts = [at for at, token in enumerate(tokens) if token.type == "table_open"]
    return zip(starts, ends, strict=True)


def _describe_table(tokens: Sequence[Token]) -> None:
    """Tell the style sheet what it needs to know: alignment, heads of columns, long texts."""
    heads: list[str] = []
    column = 0
    longest = 0
    for token, content in pairwise(tokens):
        if token.type == "tr_open":
            column = 0
        if token.type not in ("th_open", "td_open"):
            continue
        alignment = str(token.attrs.pop("style", "")).removeprefix("text-align:")
        if alignment:
            token.attrs["class"] = alignment
        if token.type == "th_open":
            heads.append(_text(content))
        else:
            longest = max(longest, len(_text(content)))
            if column and heads[column]:
                token.attrs["data-head"] = heads[column]
        column += 1
    if longest > LONG_TEXT:
        tokens[0].attrs["class"] = "texts"


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
        """A block of code; what stands beside ``` are its classes."""
        classes = escape(tokens[at].info.strip())
        return (
            f'<pre class="{classes}" tabindex="0"><code>{escape(tokens[at].content)}</code></pre>\n'
        )

    def table_open(self, tokens: Sequence[Token], at: int, *_: object) -> str:
        """A table begins."""
        return f'<div class="scroll" tabindex="0"><table{self.renderAttrs(tokens[at])}>\n'

    def table_close(self, *_: object) -> str:
        """A table ends."""
        return "</table></div>\n"
