"""Runs the service on this machine in the foreground, with sample data: what `make run` does.

It serves in a child process. This adds what a first run wants: sample data in an empty store, what
to try, and a Ctrl-C that ends everything in seconds.
"""

import argparse
import shutil
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from deployments.client import Client, EmbeddingsError
from deployments.client.printable import printable
from deployments.core.settings import Settings
from deployments.samples import FOLDER, load_samples, show_examples
from deployments.serve_process import (
    StartError,
    check_port,
    start,
    stop,
    url_of,
    wait_until_ready,
)

DEFAULT_URL = "http://127.0.0.1:8004"

console = Console(highlight=False)


def main() -> int:
    """Start, load, show examples, and serve until Ctrl-C; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", type=Path, default=Path("serve_config.yaml"))
    parser.add_argument("--samples", type=Path, default=FOLDER)
    parser.add_argument("--log", type=Path, default=Path("data/processed/serve.log"))
    options = parser.parse_args()
    return run(options.config, options.log, options.samples)


def run(config: Path, log: Path, samples: Path | None) -> int:
    """Serve until Ctrl-C; returns the exit code.

    Fills an empty index with `samples`, if given, and shows some searches in them.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        url = url_of(config)
        check_port(url)
        console.print(f"Starting Ray Serve; its log is {log} …", markup=False)
        child = start(config, log)
    except StartError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    try:
        settings = Settings.load()
        key = settings.client_key()
        headers = {} if key is None else {"X-API-Key": key}
        wait_until_ready(url, child, headers=headers)
        if samples is not None:
            with Client(url, key) as client:
                writes = key is None or settings.embeddings_api_key is not None
                if writes and client.stats().total_vectors == 0:
                    started = time.monotonic()
                    loaded = load_samples(client, samples)
                    seconds = time.monotonic() - started
                    console.print(f"Loaded {loaded} sample segments in {seconds:.1f} s.")
                show_examples(client, console)
        header = "" if key is None else ' -H "X-API-Key: …"'
        _show_directions(url, log, header, with_make=samples == FOLDER)
        child.wait()
        raise StartError("The service ended by itself.")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        console.print("\nStopping …")
        return 0
    except (StartError, EmbeddingsError) as error:
        told = f"{printable(error)} The end of {log}:\n"
        console.print(told, style="red", markup=False, soft_wrap=True)
        console.print(_tail(log), markup=False, soft_wrap=True)
        return 1
    finally:
        stop(child)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])


def _show_directions(url: str, log: Path, header: str, with_make: bool) -> None:
    commands, serve = (_typed(name) for name in ("embeddings-service", "serve"))
    where = "" if url == DEFAULT_URL else f" --url {url}"
    clear = "\n  Remove all stored data   make clear, after stopping" if with_make else ""
    console.print(
        f"""
The service is up.
  Search page              {url}/
  Guide                    {url}/guide
  API, to read and try     {url}/docs
  A search                 curl '{url}/search/transcripts?query=when+is+a+stock+overbought'{header}
  From the command line    {commands} search "when is a stock overbought?"{where}
  State of its parts       RAY_AUTH_MODE=token {serve} status
  Log                      {log}
  Stop                     Ctrl-C; everything stored stays{clear}
""",
        markup=False,
        soft_wrap=True,
    )


def _typed(command: str) -> str:
    """What to type in this folder to run a command of this environment."""
    path = Path(sys.executable).with_name(command)
    if shutil.which(command) == str(path):
        return command
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
