"""How many cores there are to compute on."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC_CGROUP = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """How many threads can compute at once in this process, at least 1.

    By its CPU affinity and by the quota of its container, of which a broken core is left out:
    threads beyond the quota are all halted together until the next period.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def cpu_quota(proc_cgroup: Path = PROC_CGROUP, cgroups: Path = CGROUPS) -> float | None:
    """The CPU time that this process' cgroups may use, in cores; None without a limit.

    The least of its own and of all above it, in version 1 and 2 of Linux' cgroups.
    """
    try:
        lines = proc_cgroup.read_text().splitlines()
    except OSError:
        return None
    quotas = [
        quota
        for line in lines
        for folder in _folders(line, cgroups)
        if (quota := _quota(folder)) is not None
    ]
    return min(quotas, default=None)


def _folders(line: str, cgroups: Path) -> Iterator[Path]:
    """Where the limits of a line of /proc/self/cgroup, `number:controllers:path`, may be.

    In a container the path is often that on the host and isn't there, and the root is its own.
    """
    _, controllers, path = line.split(":", 2)
    if controllers and "cpu" not in controllers.split(","):
        return
    own = PurePosixPath(path.lstrip("/"))
    for mount in {controllers, "cpu"} if controllers else {""}:
        for part in (own, *own.parents):
            if ".." not in part.parts:
                yield cgroups / mount / part


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        cores = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        # It isn't there, or is "max".
        return None
    # Version 1 has -1 for none.
    return cores if cores > 0 else None
