"""Marks and times on timelines, whatever the times are."""

import re

import pytest
from playwright.sync_api import expect

from tests.serve.page.pages import at, hits

HOURS = [("Quokka intro", 0, 3), ("Quokka outro", 7197, 7200)]
AT_THE_END = [("Quokka", 30, 30), ("Quokka again", 60, 60)]
SINCE_1970 = [(f"Wombat {n}", 1.7e9 + 30 * n, 1.7e9 + 30 * n + 25) for n in range(3)]
LATE = [("Numbat", 36_000, 36_011)]
HUGE = [("Narwhal", -1.7e308, 1.7e308), ("Narwhal again", 1e300, 1.7e308)]


def timeline_of(open_page, store, segments, **options):
    store(
        "times",
        [
            {"id": n, "text": text, "start_time": start, "end_time": end}
            for n, (text, start, end) in enumerate(segments)
        ],
    )
    path = at(q=segments[0][0].split()[0], mode="keyword", media="times")
    page = open_page(path=path, **options)
    expect(hits(page)).to_have_count(len(segments))
    page.wait_for_load_state("networkidle")
    return page


@pytest.mark.parametrize(
    ("segments", "ends", "widths"),
    [
        (HOURS, ["00:00", "2:00:00"], [4, 4]),
        (AT_THE_END, ["00:00", "01:00"], [4, 4]),
        (SINCE_1970, ["472222:13:20", "472222:14:45"], [r"29.4%"] * 3),
        (LATE, ["10:00:00", "10:00:11"], ["100%"]),
        (HUGE, ["-1.7e+308 s", "1.7e+308 s"], ["100%", "50%"]),
    ],
)
def test_every_mark_is_seen(open_page, store, segments, ends, widths):
    page = timeline_of(open_page, store, segments)
    expect(page.locator(".ends span")).to_have_text(ends)
    track = page.locator(".track").bounding_box()
    found = []
    for mark in page.locator(".span").all():
        seen = mark.bounding_box()
        assert track["x"] - 0.5 <= seen["x"]
        assert seen["x"] + seen["width"] <= track["x"] + track["width"] + 0.5
        found.append(seen["width"])
    wanted = [
        float(width[:-1]) / 100 * track["width"] if isinstance(width, str) else width
        for width in widths
    ]
    assert found == pytest.approx(wanted, abs=1)


@pytest.mark.parametrize("segments", [SINCE_1970, HUGE])
@pytest.mark.parametrize("width", [320, 1280])
def test_long_times_stay_in_their_place(open_page, store, segments, width):
    page = timeline_of(open_page, store, segments, viewport={"width": width, "height": 700})
    hits(page).first.get_by_role("button", name="Context").click()
    expect(page.locator(".neighbour").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    time = hits(page).first.locator(".where .time")
    assert "NaN" not in page.locator("#results").inner_text()
    assert re.search(r"\d – ", time.inner_text()) or "s – " in time.inner_text()
    if width > 1000:
        said = hits(page).first.locator(".said").bounding_box()
        right = time.evaluate(
            "time => { const range = document.createRange(); range.selectNode(time.lastChild);"
            " return range.getBoundingClientRect().right; }"
        )
        assert right <= said["x"]
    for line in page.locator(".neighbour").all():
        assert line.evaluate("line => line.scrollWidth <= line.clientWidth")
