"""Kills the service again and again under load, and looks for what got lost.

Everything random follows from the seed, except what the operating system decides. The folder
and the service's log are kept when a promise was broken.
"""

import argparse
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.crash import recovery_time, restart_check
from tests.crash.campaign import Campaign, Options


def main() -> int:
    """Run what the command line says; returns 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=120, help="start no kill after these")
    parser.add_argument("--json", type=Path, help="write the report there too")
    parser.add_argument("--folder", type=Path, help="work there instead of a temporary folder")
    parser.add_argument("--short", action="store_true", help="begin with the ten of `make test`")
    parser.add_argument("--only", default="", help="kinds of kills with this in their name")
    parser.add_argument(
        "--default-transport", action="store_true", help="without HAProxy and gRPC handles"
    )
    parser.add_argument(
        "--sabotage",
        choices=("lose", "tear", "blur"),
        default="",
        help="break a promise on purpose, to see that it is noticed",
    )
    parser.add_argument(
        "--restart-check",
        action="store_true",
        help="instead: compare 1,000 answers over 20,000 segments before and after restarts",
    )
    parser.add_argument(
        "--recovery-time",
        action="store_true",
        help="instead: measure how long an index of 100,000 segments takes to open",
    )
    arguments = parser.parse_args()
    if arguments.restart_check:
        return 0 if restart_check.check(segments=20_000, queries=1000) else 1
    if arguments.recovery_time:
        return 0 if recovery_time.measure(segments=100_000) else 1
    seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="crash-"))
    options = Options(
        seed,
        arguments.kills,
        arguments.minutes,
        folder,
        sabotage=arguments.sabotage,
        default_transport=arguments.default_transport,
        only=arguments.only,
        short=arguments.short,
    )
    print(f"Seed {seed}, folder {folder}", flush=True)
    report = Campaign(options).run()
    print(f"\n{report.table()}", flush=True)
    if arguments.json:
        report.write_json(arguments.json)
    if report.violations:
        print(f"\n{len(report.violations)} broken promises; see {folder}")
        return 1
    if not arguments.folder:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
