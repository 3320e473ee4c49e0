"""The template of links into a player."""

import re
from urllib.parse import urlsplit

from deployments.core.fields import refuse

PLACES = ("{media_item_id}", "{start_time}")
_BRACES = re.compile(r"\{[^{}]*\}|[{}]")


def check_template(template: str) -> str:
    """The template, if every link made of it leads to where it says.

    The values that come into its places are URL-encoded, so they can't change the host, which has
    to be written out. Raises PydanticCustomError.
    """
    unknown = [found for found in _BRACES.findall(template) if found not in PLACES]
    if unknown:
        raise refuse(
            "media_url_place",
            "{unknown} is not a place for a value; {places} are",
            unknown=unknown[0],
            places=" and ".join(PLACES),
        )
    if PLACES[0] not in template:
        raise refuse("media_url_place", "must have {place} in it", place=PLACES[0])
    if not template.isprintable() or " " in template or "\\" in template:
        raise refuse("media_url_characters", "must have no spaces, control characters or \\")
    if not _leads_to_one_host(template):
        raise refuse(
            "media_url_host",
            "must begin with https:// or http:// and a host without places in it, or with one /",
        )
    return template


def _leads_to_one_host(template: str) -> bool:
    if template.startswith("/"):
        return not template.startswith("//")
    try:
        parts = urlsplit(template)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "{" not in parts.netloc
