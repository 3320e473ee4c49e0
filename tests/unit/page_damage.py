"""Damage to the pages of a real store file, at places found by reading SQLite's page structure.

See https://www.sqlite.org/fileformat2.html, "B-tree Pages".
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from storage_samples import FRAME, MODEL, segment, store_segments

from deployments.core.index.segment_index import SegmentIndex
from deployments.core.storage.schema_sql import PAGE_BYTES

INTERIOR, LEAF = (2, 5), (10, 13)


def fill_pages(folder: Path) -> None:
    """Rows enough for several pages of each table and index; some are deleted again."""
    with SegmentIndex.open(folder, MODEL) as index:
        for media_item in range(20):
            texts = (f"Text {media_item} {i} {'x' * (i * 37 % 200)}" for i in range(40))
            rows = (segment(i, text, a=i) for i, text in enumerate(texts))
            store_segments(index, media_item, *rows)
        store_segments(index, "f", *(segment(i, f"frame {i}") for i in range(100)), kind=FRAME)
        index.delete_media(3)


def pages_of(store: Path, name: str) -> list[int]:
    """Numbers of all pages of a table's or an index' b-tree, its root first."""
    with closing(sqlite3.connect(f"{store.as_uri()}?immutable=1", uri=True)) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name=?", (name,)
        ).fetchone()
    data = store.read_bytes()
    found, open_pages = [], [root]
    while open_pages:
        number = open_pages.pop(0)
        found.append(number)
        page = data[(number - 1) * PAGE_BYTES : number * PAGE_BYTES]
        start = 100 if number == 1 else 0
        if page[start] in INTERIOR:
            cells = int.from_bytes(page[start + 3 : start + 5])
            for cell in range(cells):
                at = start + 12 + 2 * cell
                pointer = int.from_bytes(page[at : at + 2])
                open_pages.append(int.from_bytes(page[pointer : pointer + 4]))
            open_pages.append(int.from_bytes(page[start + 8 : start + 12]))
    return found


def leaves_of(store: Path, name: str) -> list[int]:
    """Those of them that hold rows, in the order of the rows."""
    return [page for page in pages_of(store, name) if store_page(store, page)[0] in LEAF]


def store_page(store: Path, number: int) -> bytes:
    return store.read_bytes()[(number - 1) * PAGE_BYTES : number * PAGE_BYTES]


def overwrite(store: Path, position: int, data: bytes) -> None:
    content = bytearray(store.read_bytes())
    content[position : position + len(data)] = data
    store.write_bytes(content)


def zero_page(store: Path, number: int) -> None:
    overwrite(store, (number - 1) * PAGE_BYTES, bytes(PAGE_BYTES))


def flip_in_page(store: Path, number: int, offset: int, bits: int = 1) -> None:
    """Change bits of a byte at an offset of the page, from its end if negative."""
    position = (number if offset < 0 else number - 1) * PAGE_BYTES + offset
    overwrite(store, position, bytes([store.read_bytes()[position] ^ bits]))


def flip_text(store: Path, text: bytes) -> None:
    """Change a bit of the one place where the file has these bytes."""
    content = store.read_bytes()
    assert content.count(text) == 1
    position = content.index(text)
    overwrite(store, position, bytes([content[position] ^ 1]))
