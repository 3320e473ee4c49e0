"""SQLite's own file operations, counted, recorded, and made to fail.

SQLite reaches its files through a table of functions, its VFS. `install` puts a copy of the
system's in front of it, in the same library that Python's sqlite3 module uses, so that the code
under test runs as it is.
"""

import _sqlite3
import ctypes
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from ctypes import CFUNCTYPE, POINTER, Structure, c_int, c_int64, c_void_p, cast, string_at
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_STORE = 0x00000100  # SQLITE_OPEN_MAIN_DB
_LOGS = 0x00080800  # SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL

_ERRORS = {
    "open": sqlite3.SQLITE_CANTOPEN,
    "read": sqlite3.SQLITE_IOERR_READ,
    "write": sqlite3.SQLITE_IOERR_WRITE,
    "truncate": sqlite3.SQLITE_IOERR_TRUNCATE,
    "sync": sqlite3.SQLITE_IOERR_FSYNC,
    "shm": sqlite3.SQLITE_IOERR_SHMSIZE,
    "delete": sqlite3.SQLITE_IOERR_DELETE,
}
"""What SQLite is told, by the call that fails."""

CHANGES = frozenset(_ERRORS) - {"read"}


@dataclass(frozen=True, slots=True)
class Fault:
    """What fails: the `at`th call from now of those in `calls`, and with `lasting` all after it.

    With `full`, writes fail as on a full disk, else with an input/output error. `taken` is the
    part of its bytes that a failing write still leaves in the file.
    """

    at: int
    calls: frozenset[str] = CHANGES
    lasting: bool = False
    full: bool = False
    taken: float = 0.0


class Recorder(Protocol):
    """Learns what happens to the files of a folder."""

    def opened(self, path: Path) -> None: ...

    def wrote(self, path: Path, offset: int, data: bytes) -> None: ...

    def truncated(self, path: Path, size: int) -> None: ...

    def synced(self, path: Path) -> None: ...

    def sync_failed(self, path: Path) -> None: ...

    def deleted(self, path: Path) -> None: ...

    def folder_synced(self, folder: Path) -> None: ...


class FaultyFiles:
    """What to do to the files below one folder; all others are left alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recorder: Recorder | None = None
        self.passed = 0
        """Calls since `arm` that could have failed."""
        self.injected: list[str] = []
        """Calls since `arm` that did fail, such as "sync store.sqlite3-wal"."""
        self._fault: Fault | None = None

    def arm(self, fault: Fault) -> None:
        self._fault, self.passed, self.injected = fault, 0, []

    def disarm(self) -> None:
        self._fault = None

    def failure(self, call: str, path: Path) -> int:
        """The SQLite error with which this call fails, 0 if it doesn't."""
        fault = self._fault
        if fault is None or call not in fault.calls:
            return 0
        self.passed += 1
        if self.passed < fault.at or (self.passed > fault.at and not fault.lasting):
            return 0
        self.injected.append(f"{call} {path.name}")
        return sqlite3.SQLITE_FULL if fault.full and call == "write" else _ERRORS[call]

    def taken(self, size: int) -> int:
        """How many bytes of a write that fails reach the file."""
        return 0 if self._fault is None else int(size * self._fault.taken)


class _Vfs(Structure):
    _fields_ = (
        ("version", c_int),
        ("file_bytes", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_void_p),
        ("data", c_void_p),
        ("open", c_void_p),
        ("delete", c_void_p),
        ("others", c_void_p * 14),
    )


class _Methods(Structure):
    _fields_ = (
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", c_void_p),
        ("truncate", c_void_p),
        ("sync", c_void_p),
        ("others", c_void_p * 7),
        ("shm", c_void_p),
        ("last", c_void_p * 5),
    )


class _File(Structure):
    _fields_ = (("methods", c_void_p),)


# Pointers stay numbers: SQLite keeps more behind a name than the name.
_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_DELETE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_SIGNATURES = {
    "close": CFUNCTYPE(c_int, c_void_p),
    "read": CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64),
    "write": CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64),
    "truncate": CFUNCTYPE(c_int, c_void_p, c_int64),
    "sync": CFUNCTYPE(c_int, c_void_p, c_int),
    "shm": CFUNCTYPE(c_int, c_void_p, c_int, c_int, c_int, c_void_p),
}


class _Shim:
    """The VFS in front; lives as long as the process, since SQLite keeps its address."""

    def __init__(self) -> None:
        self._library = _library()
        self._system = _Vfs.from_address(self._library.sqlite3_vfs_find(None))
        self._open = _OPEN(self._system.open)
        self._delete = _DELETE(self._system.delete)
        self._paths: dict[int, tuple[Path, dict]] = {}
        self._unsynced: set[int] = set()
        self._tables: dict[int, tuple[_Methods, dict]] = {}
        self._name = ctypes.create_string_buffer(b"faulty")
        self._callbacks = {name: make(getattr(self, name)) for name, make in _SIGNATURES.items()}
        self._own_open, self._own_delete = _OPEN(self.open), _DELETE(self.delete)
        self._vfs = _Vfs.from_buffer_copy(self._system)
        self._vfs.name = ctypes.addressof(self._name)
        self._vfs.open = cast(self._own_open, c_void_p).value
        self._vfs.delete = cast(self._own_delete, c_void_p).value
        self.files: FaultyFiles | None = None

    def use(self, mine: bool) -> None:
        vfs = self._vfs if mine else self._system
        assert self._library.sqlite3_vfs_register(ctypes.byref(vfs), 1) == sqlite3.SQLITE_OK

    def _ours(self, name: int | None) -> Path | None:
        if self.files is None or name is None:
            return None
        path = Path(string_at(name).decode())
        return path if path.parent == self.files.folder else None

    def open(self, vfs, name, file, flags, out_flags) -> int:
        path = self._ours(name)
        if path is None or not flags & (_STORE | _LOGS):
            return self._open(ctypes.addressof(self._system), name, file, flags, out_flags)
        code = self.files.failure("open", path)
        if code:
            # What a failed opening leaves: a file without methods, which SQLite doesn't close.
            _File.from_address(file).methods = None
            return code
        code = self._open(ctypes.addressof(self._system), name, file, flags, out_flags)
        methods = _File.from_address(file).methods
        if code == sqlite3.SQLITE_OK and methods:
            table, real = self._table(methods)
            _File.from_address(file).methods = ctypes.addressof(table)
            self._paths[file] = (path, real)
            if flags & _LOGS:
                self._unsynced.add(file)
            if self.files.recorder is not None:
                self.files.recorder.opened(path)
        return code

    def _table(self, address: int) -> tuple[_Methods, dict]:
        if address not in self._tables:
            table = _Methods.from_buffer_copy(_Methods.from_address(address))
            real = {}
            for name, make in _SIGNATURES.items():
                if (function := getattr(table, name)) is not None:  # not all kinds have shm
                    real[name] = make(function)
                    setattr(table, name, cast(self._callbacks[name], c_void_p).value)
            self._tables[address] = (table, real)
        return self._tables[address]

    def delete(self, vfs, name, sync_folder) -> int:
        path = self._ours(name)
        if path is not None and (code := self.files.failure("delete", path)):
            return code
        code = self._delete(ctypes.addressof(self._system), name, sync_folder)
        if path is not None and code == sqlite3.SQLITE_OK and self.files.recorder is not None:
            self.files.recorder.deleted(path)
            if sync_folder:
                self.files.recorder.folder_synced(path.parent)
        return code

    def close(self, file) -> int:
        self._unsynced.discard(file)
        return self._paths.pop(file)[1]["close"](file)

    def read(self, file, buffer, size, offset) -> int:
        path, real = self._paths[file]
        return self._failure("read", path) or real["read"](file, buffer, size, offset)

    def write(self, file, buffer, size, offset) -> int:
        path, real = self._paths[file]
        failure = self._failure("write", path)
        taken = self.files.taken(size) if failure else size
        code = real["write"](file, buffer, taken, offset) if taken else sqlite3.SQLITE_OK
        if taken and code == sqlite3.SQLITE_OK and (recorder := self._recorder(path)):
            recorder.wrote(path, offset, string_at(buffer, taken))
        return failure or code

    def truncate(self, file, size) -> int:
        path, real = self._paths[file]
        code = self._failure("truncate", path) or real["truncate"](file, size)
        if code == sqlite3.SQLITE_OK and (recorder := self._recorder(path)):
            recorder.truncated(path, size)
        return code

    def sync(self, file, flags) -> int:
        path, real = self._paths[file]
        code = self._failure("sync", path) or real["sync"](file, flags)
        if recorder := self._recorder(path):
            if code == sqlite3.SQLITE_OK:
                recorder.synced(path)
                if file in self._unsynced:  # with a log's first sync SQLite syncs its folder
                    self._unsynced.discard(file)
                    recorder.folder_synced(path.parent)
            else:
                recorder.sync_failed(path)
        return code

    def shm(self, file, region, size, extend, address) -> int:
        path, real = self._paths[file]
        failure = self._failure("shm", path) if extend else 0
        return failure or real["shm"](file, region, size, extend, address)

    def _failure(self, call: str, path: Path) -> int:
        ours = self.files is not None and path.parent == self.files.folder
        return self.files.failure(call, path) if ours else 0

    def _recorder(self, path: Path) -> Recorder | None:
        ours = self.files is not None and path.parent == self.files.folder
        return self.files.recorder if ours else None


def _library() -> ctypes.CDLL:
    """SQLite as Python's sqlite3 module has it loaded, whether shared or its own."""
    library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
    try:
        library.sqlite3_vfs_find.restype = c_void_p
        library.sqlite3_vfs_register.argtypes = (POINTER(_Vfs), c_int)
        library.sqlite3_sourceid.restype = ctypes.c_char_p
    except AttributeError as error:
        raise RuntimeError(
            "This Python's sqlite3 module hides SQLite's C functions, so nothing can be made to "
            "fail beneath it. Run the tests with a Python that uses the system's libsqlite3, such "
            "as Debian's own or one that pyenv built."
        ) from error
    with closing(sqlite3.connect(":memory:")) as connection:
        (source,) = connection.execute("SELECT sqlite_source_id()").fetchone()
    found = library.sqlite3_sourceid().decode()
    assert found == source, f"sqlite3 runs {source}, not the {found} that was found"
    return library


_shim: list[_Shim] = []


@contextmanager
def install(folder: Path) -> Iterator[FaultyFiles]:
    """Reach SQLite's files in `folder`, which must be an absolute path without links."""
    if not _shim:
        _shim.append(_Shim())
    (shim,) = _shim
    assert shim.files is None
    files = shim.files = FaultyFiles(folder)
    shim.use(True)
    try:
        _require_reach(files)
        yield files
    finally:
        shim.use(False)
        files.disarm()
        shim.files = None


def _require_reach(files: FaultyFiles) -> None:
    """Raise unless a fault arrives: tests that inject nothing would pass."""
    files.arm(Fault(1))
    with suppress(sqlite3.OperationalError):
        sqlite3.connect(files.folder / "reached.sqlite3").close()
    if files.injected != ["open reached.sqlite3"]:
        raise RuntimeError("Faults don't reach SQLite's files.")
    files.disarm()
