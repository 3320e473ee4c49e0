"""Faiss on a GPU: flat and IVF indices live there, where Faiss was built for it and one is there.

Everything else runs on the CPU all the same.
"""

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import faiss

from deployments.core.segments import IndexType

MOST_RESULTS = 2048
"""What a search on a GPU may return for a query."""

_TYPES = (IndexType.FLAT, IndexType.IVF)
_turn = threading.Lock()


def available() -> bool:
    """Whether there is a GPU that this build of Faiss can use."""
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def takes(kind: IndexType) -> bool:
    """Whether main parts of a type live on a GPU here."""
    return kind in _TYPES and available()


def moved(kind: IndexType, index: Any) -> Any:
    """The index on the first GPU if its type lives there, else the index itself.

    Raises RuntimeError if the GPU's memory doesn't suffice.
    """
    if not takes(kind):
        return index
    return faiss.index_cpu_to_gpu(_resources(), 0, index)


def moved_back(index: Any) -> Any:
    """A copy of an index on a GPU that the CPU can read and write; others as they are."""
    if not holds(index):
        return index
    return faiss.index_gpu_to_cpu(index)


def holds(index: Any) -> bool:
    """Whether an index lives on a GPU."""
    return available() and isinstance(index, faiss.GpuIndex)


def turn(index: Any) -> AbstractContextManager[Any]:
    """Hold this while searching: an index on a GPU serves one thread at a time."""
    return _turn if holds(index) else nullcontext()


_shared: list[Any] = []


def _resources() -> Any:
    # One for all indices: each takes scratch memory on the GPU, more than a gigabyte.
    if not _shared:
        _shared.append(faiss.StandardGpuResources())
    return _shared[0]
