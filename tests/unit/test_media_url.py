"""The template of links into a player: what is one, and what it makes."""

import pytest
from pydantic_core import PydanticCustomError

from deployments.core.errors import SettingsError
from deployments.core.media_url import check_template
from deployments.core.settings import Settings


@pytest.mark.parametrize(
    "template",
    [
        "https://player.example/watch?v={media_item_id}&t={start_time}",
        "http://localhost:3000/{media_item_id}#t={start_time}",
        "/player/{media_item_id}",
    ],
)
def test_templates_that_lead_to_one_host(template):
    assert check_template(template) == template


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("https://player.example/{id}/{media_item_id}", "{id} is not a place for a value"),
        ("https://player.example/{media_item_id", "{ is not a place"),
        ("https://player.example/?t={start_time}", "must have {media_item_id} in it"),
        ("javascript:play({media_item_id})", "must begin with https://"),
        ("{media_item_id}:alert(1)", "must begin with https://"),
        ("https://{media_item_id}.example/", "host without places"),
        ("https://x@{media_item_id}/", "host without places"),
        ("https:///{media_item_id}", "must begin with https://"),
        ("https://[/{media_item_id}", "must begin with https://"),
        ("//player.example/{media_item_id}", "must begin with https://"),
        ("/\\player.example/{media_item_id}", "no spaces, control characters"),
        ("java\nscript:{media_item_id}", "no spaces, control characters"),
        ("player.html?v={media_item_id}", "must begin with https://"),
    ],
)
def test_others_are_refused(template, expected):
    with pytest.raises(PydanticCustomError) as raised:
        check_template(template)
    assert expected in raised.value.message()


def test_the_setting_is_checked_at_the_start(monkeypatch):
    assert Settings.load().media_url_template is None
    monkeypatch.setenv("MEDIA_URL_TEMPLATE", "ftp://x/{media_item_id}")
    with pytest.raises(SettingsError, match=r"MEDIA_URL_TEMPLATE='ftp://x/.*must begin with https"):
        Settings.load()
    monkeypatch.setenv("MEDIA_URL_TEMPLATE", "/watch/{media_item_id}")
    assert Settings.load().media_url_template == "/watch/{media_item_id}"
    monkeypatch.setenv("MEDIA_URL_TEMPLATES", "x")
    with pytest.raises(SettingsError, match=r"did you mean MEDIA_URL_TEMPLATE\?"):
        Settings.load()
