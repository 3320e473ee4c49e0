"""Cores that a process may use: its affinity and the quota of its cgroups."""

import os

import pytest

from deployments.core.encoding import cores
from deployments.core.encoding.cores import cpu_quota, usable_cores

V2 = "0::/"
V1 = "4:memory:/\n3:cpu,cpuacct:/\n1:name=systemd:/"


def quota_of(tmp_path, proc, files):
    """What is read where /proc/self/cgroup and the files under /sys/fs/cgroup are these."""
    (tmp_path / "proc").write_text(proc)
    for name, content in files.items():
        file = tmp_path / "cgroups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    return cpu_quota(tmp_path / "proc", tmp_path / "cgroups")


@pytest.mark.parametrize(
    ("proc", "files", "quota"),
    [
        (V2, {"cpu.max": "200000 100000"}, 2.0),
        (V2, {"cpu.max": "50000 100000"}, 0.5),
        (V2, {"cpu.max": "max 100000"}, None),
        (V2, {}, None),
        (V2, {"cpu.max": "damaged"}, None),
        # On a machine, the own group and those above it.
        (
            "0::/system.slice/a.service",
            {
                "system.slice/cpu.max": "300000 100000",
                "system.slice/a.service/cpu.max": "max 100000",
                "other.slice/cpu.max": "100000 100000",
            },
            3.0,
        ),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "400000 100000"}, 3.0),
        # In a container, whose own group is at the root whatever the path says.
        ("0::/../../pods/7", {"cpu.max": "150000 100000"}, 1.5),
        (
            V1,
            {"cpu,cpuacct/cpu.cfs_quota_us": 250000, "cpu,cpuacct/cpu.cfs_period_us": 100000},
            2.5,
        ),
        (
            "3:cpuacct,cpu:/docker/1234",
            {"cpu/cpu.cfs_quota_us": 400000, "cpu/cpu.cfs_period_us": 100000},
            4.0,
        ),
        (
            "1:cpu:/one",
            {"cpu/one/cpu.cfs_quota_us": 100000, "cpu/one/cpu.cfs_period_us": 50000},
            2.0,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000}, None),
        ("4:memory:/", {"cpu/cpu.cfs_quota_us": 1, "cpu/cpu.cfs_period_us": 1}, None),
    ],
)
def test_the_quota_is_the_least_of_a_process_groups(tmp_path, proc, files, quota):
    assert quota_of(tmp_path, proc, files) == quota


def test_there_is_no_quota_without_cgroups(tmp_path):
    assert cpu_quota(tmp_path / "missing", tmp_path) is None


@pytest.mark.parametrize(
    ("quota", "usable"), [(None, 8), (16.0, 8), (8.0, 8), (3.7, 3), (1.0, 1), (0.2, 1)]
)
def test_threads_fit_into_affinity_and_quota(monkeypatch, quota, usable):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert usable_cores() == usable


def test_the_cores_of_this_machine():
    assert 1 <= usable_cores() <= os.cpu_count()
