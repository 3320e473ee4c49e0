"""The Chromium that tries the search page; `python -m tests.serve.browser` installs one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Playwright, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
APT = [["apt-get", "update", "-qq"], ["apt-get", "install", "-qq", "--yes", "chromium"]]
PLAYWRIGHT = [[sys.executable, "-m", "playwright", "install", "chromium"]]


def launch_options() -> dict:
    """For `chromium.launch`: this machine's own browser, else the one that Playwright keeps."""
    own = next((path for name in NAMES if (path := shutil.which(name))), None)
    # Chromium's sandbox refuses to work for root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return {"args": arguments, **({"executable_path": own} if own else {})}


def is_there(playwright: Playwright) -> bool:
    path = launch_options().get("executable_path", playwright.chromium.executable_path)
    return Path(path).exists()


def install(playwright: Playwright) -> None:
    as_root = os.geteuid() == 0 and shutil.which("apt-get") is not None
    for commands in [APT, PLAYWRIGHT] if as_root else [PLAYWRIGHT]:
        if all(subprocess.run(command).returncode == 0 for command in commands):
            break
    if not is_there(playwright):
        sys.exit(f"The tests of the search page need a Chromium; install one of {', '.join(NAMES)}")


if __name__ == "__main__":
    with sync_playwright() as found:
        if not is_there(found):
            install(found)
