"""How far long work is, in a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def telling(as_json: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """What long work calls to tell how far it is: with what is done, how much, and of how much.

    Shown on stderr while the block lasts, if that is a terminal and the result isn't for programs.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield lambda what, done, total: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn())
    count = TextColumn("{task.fields[count]}", markup=False)
    with Progress(*columns, count, console=console, transient=True) as progress:
        shown = ""

        def tell(what: str, done: int, total: int | None) -> None:
            nonlocal shown
            if what != shown:
                # A new bar: one that had a total can't lose it.
                for task in progress.task_ids:
                    progress.remove_task(task)
                progress.add_task(what, total=total, count="")
                shown = what
            of = "" if total is None else f" of {total:,}"
            count = f"{done:,}{of}" if done or total else ""
            progress.update(progress.task_ids[0], completed=done, total=total, count=count)

        yield tell
