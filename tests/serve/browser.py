"""The Chromium that tries the search page; `python -m tests.serve.browser` installs one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Playwright, sync_playwright

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


def serious(page: Page) -> list[tuple[str, str, str]]:
    """What axe-core finds in a page that keeps somebody from using it."""
    found = Axe().run(page).response["violations"]
    return [
        (each["id"], node["html"], node["failureSummary"])
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


if __name__ == "__main__":
    with sync_playwright() as found:
        if not is_there(found):
            install(found)
