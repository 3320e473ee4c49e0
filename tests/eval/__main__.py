"""Command line: measures a service that runs, or one that it starts over a temporary folder."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path

from rich.console import Console

from deployments.serve_process import StartError
from tests.eval import beir, exact, moments, sts
from tests.eval.client import Client, EvaluationError
from tests.eval.datasets import MissingData
from tests.eval.measures import Measure, Outcome
from tests.eval.report import as_markdown, print_table, write_json
from tests.serve.service import Service

EVALUATIONS = ("sts", "exact", "beir", "moments")

Evaluation = Callable[[Client, Path], list[Measure]]

console = Console(highlight=False)


def main() -> int:
    """Measure and report; 0 if every target is met, 1 if not, 2 if nothing could be measured."""
    options = _options()
    if options.data is None or not options.data.is_dir():
        console.print(
            "Evaluation needs real data: --data FOLDER (make eval DATA=FOLDER), with data sets "
            f"for {', '.join(EVALUATIONS)} in it. Found: {options.data}",
            markup=False,
            soft_wrap=True,
        )
        return 2
    # Ends in order then too: with the service stopped that was started, and data removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    try:
        with _service(options.url) as url, Client(url) as client:
            console.print(f"Measuring {client.model['id']} at {url}", markup=False)
            outcome = _evaluate(client, options.data, options.only, options.modes)
            seconds = round(time.monotonic() - started)
            about = {"url": url, "model": client.model, "seconds": seconds}
    except (EvaluationError, StartError) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130
    if outcome.measures:
        print_table(outcome.measures, console)
    if options.json:
        write_json(options.json, outcome, about)
    if options.markdown:
        results = as_markdown(outcome, about["model"]["id"], date.today())
        options.markdown.write_text(results, encoding="utf-8")
    if not outcome.measures and not outcome.failed:
        return 2
    return 0 if outcome.targets_met else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.eval", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of data sets")
    parser.add_argument("--url", help="a running service without data; else one is started")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--markdown", type=Path, help="file for the results as tables")
    parser.add_argument("--only", type=_names(EVALUATIONS), default=list(EVALUATIONS))
    parser.add_argument("--modes", type=_names(beir.MODES), default=list(beir.MODES))
    return parser.parse_args()


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    def names(value: str) -> list[str]:
        chosen = value.split(",")
        if unknown := sorted(set(chosen) - set(known)):
            raise argparse.ArgumentTypeError(
                f"unknown: {', '.join(unknown)}; known: {', '.join(known)}"
            )
        return chosen

    return names


@contextmanager
def _service(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url.rstrip("/")
        return
    with tempfile.TemporaryDirectory(prefix="eval-", ignore_cleanup_errors=True) as folder:
        console.print(f"Starting a service; its log is {folder}/serve.log", markup=False)
        with Service(Path(folder), environment={"RAY_TMPDIR": f"{folder}/ray"}) as service:
            yield service.url


def _evaluate(client: Client, data: Path, only: Sequence[str], modes: Sequence[str]) -> Outcome:
    evaluations: dict[str, Evaluation] = {
        "sts": sts.evaluate,
        "exact": exact.evaluate,
        "beir": partial(beir.evaluate, modes=modes),
        "moments": moments.evaluate,
    }
    outcome = Outcome()
    for name in only:
        started = time.monotonic()
        try:
            outcome.measures.extend(evaluations[name](client, data))
            message = f"took {time.monotonic() - started:.0f} s"
        except MissingData as missing:
            message = f"skipped, no data set: {missing}"
            outcome.skipped.append(f"{name}: {missing}")
        except EvaluationError as error:
            message = f"FAILED: {error}"
            outcome.failed.append(f"{name}: {error}")
        console.print(f"  {name} {message}", markup=False, soft_wrap=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
