"""How far long work is, told to whoever shows it."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

Tell = Callable[[str, int, int | None], None]
"""Called now and then with what is being done, how much of it is, and of how much, if known."""

_EVERY = 500


def tell_nobody(what: str, done: int, total: int | None) -> None:
    """A Tell for when nobody looks."""


def told(tell: Tell, what: str, items: Iterable[T], total: int | None = None) -> Iterator[T]:
    """The items as they are taken, some hundreds between two calls of `tell`."""
    done = 0
    tell(what, done, total)
    for item in items:
        yield item
        done += 1
        if done % _EVERY == 0:
            tell(what, done, total)
    tell(what, done, total)
