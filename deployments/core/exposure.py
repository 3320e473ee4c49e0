"""Who can reach the service: everybody, or this machine only."""

import ipaddress

from deployments.core.errors import SettingsError
from deployments.core.settings import Settings

ANYBODY = "EMBEDDINGS_ALLOW_ANONYMOUS=1 serves everybody"


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without its port, is one of the loopback interface."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def host_of(authority: str) -> str:
    """The host in `host:port`, as a Host header has it; brackets of an IPv6 address stay."""
    host, colon, port = authority.strip().rpartition(":")
    return host if colon and not port.endswith("]") else authority.strip()


def check_exposure(settings: Settings, host: str | None) -> None:
    """Refuse to serve everybody by accident.

    `host` is what Serve listens on; None means all interfaces. Raises SettingsError if others
    than this machine can reach it, no key is set, and nobody has said that this is meant.
    """
    if settings.embeddings_allow_anonymous or settings.api_keys() is not None:
        return
    if host is None or not is_loopback(host):
        raise SettingsError(
            f"the service would listen on {host or 'all interfaces'} without an API key: set "
            f"EMBEDDINGS_API_KEY, or http_options.host to 127.0.0.1; {ANYBODY}"
        )
