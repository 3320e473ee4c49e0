"""The project's Markdown files, read."""

import re
from dataclasses import dataclass
from pathlib import Path

from deployments.rest.guide.markdown import headings

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "deployments" / "web" / "guide"
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(GUIDE.glob("*.md")),
    ROOT / "data/samples/README.md",
]
_FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.M | re.S)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of code: its language, what else its first line says, and its text."""

    language: str
    note: str
    text: str


def blocks(document: Path) -> list[Block]:
    found = []
    for indent, first_line, text in _FENCE.findall(document.read_text()):
        language, _, note = first_line.strip().partition(" ")
        found.append(Block(language, note, re.sub(f"(?m)^{indent}", "", text)))
    return found


def links(document: Path) -> list[str]:
    """Where the links of a document lead, without those in blocks of code."""
    return _LINK.findall(_FENCE.sub("", document.read_text()))


def anchors(document: Path) -> set[str]:
    return {heading.anchor for heading in headings(document.read_text())}


def tables(document: Path) -> list[list[list[str]]]:
    """The rows of each table, head first, as cells."""
    found: list[list[list[str]]] = []
    before = False
    for line in document.read_text().splitlines():
        row = line.startswith("|")
        if row and not before:
            found.append([])
        if row and not re.fullmatch(r"[|\-: ]+", line):
            found[-1].append([cell.strip() for cell in line.strip("|").split(" | ")])
        before = row
    return found
