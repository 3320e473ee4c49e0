"""Work that gives way: threads that the operating system runs when no other thread wants to."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

STEPS_DOWN = 10
"""Of niceness: beside a busy thread of its process' priority such a thread gets about a tenth of a
core, so it is never starved; alone it gets all of it. With none, searches
beside the build of an index take twice as long; with 19, the slowest of a hundred does, since a
thread may lose its core while it holds Python's lock."""

_LOWEST = 19


def lower_priority() -> None:
    """Make the calling thread, and those that it starts from now on, give way to others.

    Only Linux has priorities by thread; elsewhere this does nothing.
    """
    if sys.platform == "linux":
        # Where even that is forbidden, the work is done as well, only less politely.
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + STEPS_DOWN
            os.setpriority(os.PRIO_PROCESS, thread, min(niceness, _LOWEST))


def at_low_priority(work: Callable[[], Result]) -> Result:
    """Do something in a thread of low priority, and wait; threads that it starts stay low."""
    with ThreadPoolExecutor(1, initializer=lower_priority) as thread:
        return thread.submit(work).result()
