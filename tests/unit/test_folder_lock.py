import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.core.errors import FolderLocked, StoreUnwritable
from deployments.core.storage.folder_lock import FolderLock

HOLD = """
import sys
from pathlib import Path
from deployments.core.storage.folder_lock import FolderLock
assert FolderLock(Path(sys.argv[1])).try_acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_only_one_holds_it(folder: Path) -> None:
    first, second = FolderLock(folder), FolderLock(folder)
    assert first.try_acquire()
    assert first.try_acquire()
    assert not second.try_acquire()
    assert (first.held, second.held) == (True, False)
    first.release()
    first.release()
    assert second.try_acquire()
    assert not first.held
    second.release()


def test_says_who_holds_it(folder: Path) -> None:
    with FolderLock(folder):
        holder = FolderLock(folder).holder()
        assert holder.startswith(f"process {os.getpid()} on host {socket.gethostname()} since 20")
        with pytest.raises(FolderLocked, match=f"in use by process {os.getpid()} on") as raised:
            FolderLock(folder).__enter__()
    assert str(folder) in raised.value.detail
    with FolderLock(folder) as again:
        assert again.held


def test_holder_of_an_unreadable_file_is_unknown(folder: Path) -> None:
    assert FolderLock(folder).holder() == "an unknown process"
    folder.mkdir()
    (folder / ".lock").write_bytes(b"\xff[")
    assert FolderLock(folder).holder() == "an unknown process"
    (folder / ".lock").write_text("[1]")
    assert FolderLock(folder).holder() == "an unknown process"


def test_ends_with_a_killed_process(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        lock = FolderLock(folder)
        assert not lock.try_acquire()
        assert f"process {process.pid} on" in lock.holder()
        process.send_signal(signal.SIGKILL)
    assert lock.try_acquire()
    assert f"process {os.getpid()} on" in lock.holder()
    lock.release()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnwritable, match=r"Cannot open .*file/index/\.lock"):
        FolderLock(tmp_path / "file" / "index").try_acquire()
