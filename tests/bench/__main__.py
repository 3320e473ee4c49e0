"""Measures this service beside the baseline and the ceilings of its parts, in turn, in one run."""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from tests.bench import peers, report, servers
from tests.bench.ceilings import Ceilings
from tests.bench.comparison import Comparison
from tests.bench.texts import read_texts
from tests.serve.service import ROOT

# Wide enough for the tables where the output is no terminal.
console = Console(width=None if sys.stdout.isatty() else 130)


def main() -> int:
    """Print tables and, if asked, write JSON and Markdown."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT / "data/samples",
        help="folder with *.jsonl files whose lines have a text (default: the samples)",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=peers.PEERS,
        default=(),
        help="also measure these; each is installed in an environment of its own on first use",
    )
    options = parser.parse_args()
    texts = read_texts(options.data)
    ceilings = Ceilings()
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        compared = [
            running.enter_context(servers.service(folder / "service")),
            running.enter_context(servers.baseline()),
            *(running.enter_context(peers.peer(name, folder / name)) for name in options.peers),
        ]
        comparison = Comparison(compared, texts, ceilings)
        for name in comparison.run():
            console.print(f"Measuring {name} …", style="dim")
    for table in report.tables(comparison.rows):
        console.print(table)
    if options.json:
        options.json.write_text(report.as_json(comparison.rows))
    if options.markdown:
        when = datetime.now(UTC).date()
        options.markdown.write_text(report.as_markdown(comparison.rows, when, len(texts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
