"""What the documents say agrees with the code, and their links lead somewhere."""

import pytest
from documents import DOCUMENTS, GUIDE, ROOT, anchors, links

LANGUAGES = {"sh", "console", "json", "python", "yaml", "text"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for link in links(document):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert target.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(target), link


def test_the_index_leads_to_every_page():
    pages = {path.name for path in GUIDE.glob("*.md")}
    assert {link.partition("#")[0] for link in links(GUIDE / "index.md")} == pages - {"index.md"}


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200
