"""The guide's pages and pictures, by the name under which they are served."""

from collections.abc import Iterator
from functools import cached_property
from html import escape
from pathlib import Path
from string import Template

from deployments.rest.guide.markdown import Document, headings, render
from deployments.rest.static_files import MEDIA_TYPES, File

SOURCES = Path(__file__).parents[2] / "web" / "guide"
FRAME = SOURCES.with_name("guide.html")
INDEX = "index"
"""The page at /guide itself; the order of its links is that of the pages."""


class Guide:
    """What a folder of Markdown files and pictures is as web pages.

    A page is made when somebody asks for it first.
    """

    def __init__(self, folder: Path = SOURCES) -> None:
        self._folder = folder
        self._frame = Template(FRAME.read_text(encoding="utf-8"))
        self._made: dict[str, File] = {}

    def file(self, name: str) -> File | None:
        """A page by its name without `.md`, or a picture by its whole one; None without either."""
        if name not in self._made and name in {*self.titles, *self._pictures}:
            self._made[name] = self._page(name) if name in self.titles else self._picture(name)
        return self._made.get(name)

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of each page: the index, those that it links to, then the others by name."""
        found = {
            path.stem: headings(path.read_text(encoding="utf-8"))[0].text
            for path in sorted(self._folder.glob("*.md"))
        }
        linked = [INDEX]

        def note(link: str) -> None:
            name = link.partition("#")[0].removesuffix(".md")
            if name in found and name not in linked:
                linked.append(name)

        render(self._source(INDEX), note)
        return {name: found[name] for name in [*linked, *(found.keys() - set(linked))]}

    @cached_property
    def _pictures(self) -> set[str]:
        return {path.name for path in self._folder.iterdir() if path.suffix in MEDIA_TYPES}

    def _source(self, name: str) -> str:
        return (self._folder / f"{name}.md").read_text(encoding="utf-8")

    def _picture(self, name: str) -> File:
        path = self._folder / name
        return File.of(path.read_bytes(), path.suffix)

    def _page(self, name: str) -> File:
        document = render(self._source(name), lambda link: self._target(link, name))
        frame = self._frame.substitute(
            root=_root(name),
            title=escape(self.titles[name]),
            pages="\n".join(self._navigation(name, document)),
            article=document.html,
        )
        return File.of(frame.encode(), ".html")

    def _target(self, link: str, page: str) -> str | None:
        """A link of a Markdown file as one of its page; None if it leads out of the guide."""
        if "://" in link or link.startswith(("#", "mailto:")):
            return link
        name, _, anchor = link.partition("#")
        if name.removesuffix(".md") in self.titles or name in self._pictures:
            return _url(name.removesuffix(".md"), page) + (anchor and f"#{anchor}")
        return None

    def _navigation(self, current: str, document: Document) -> Iterator[str]:
        for name, title in self.titles.items():
            here = ' aria-current="page"' if name == current else ""
            yield f'<li><a href="{_url(name, current)}"{here}>{escape(title)}</a>'
            sections = [heading for heading in document.headings if heading.level == 2]
            if name == current and name != INDEX and sections:
                yield "<ul>"
                for heading in sections:
                    yield f'<li><a href="#{heading.anchor}">{escape(heading.text)}</a></li>'
                yield "</ul>"
            yield "</li>"


def _root(page: str) -> str:
    """The way from a page to /, whatever comes before it."""
    return "./" if page == INDEX else "../"


def _url(name: str, page: str) -> str:
    guide = f"{_root(page)}guide"
    return guide if name == INDEX else f"{guide}/{name}"
