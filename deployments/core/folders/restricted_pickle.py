"""Reads pickles of plain containers and scalars, and runs nothing that they ask for.

A pickle is a program: it names functions and calls them. Here every name leads to a type of
datetime, to a container, or to a stand-in that makes a plain value of its arguments; all others
are refused. Before that the opcodes are looked through, for those that could make a few bytes
of file fill the memory.
"""

import io
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, NoReturn

import numpy as np

from deployments.core.errors import InvalidInput

# What reaches objects past find_class: a process' registry of extensions, and persistent ids.
_REFUSED_OPCODES = {"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
_MEMO_OPCODES = {"PUT", "BINPUT", "LONG_BINPUT"}

_NUMBER_SPEC = re.compile(r"b1|[iu][1248]|f[248]", re.ASCII)
_TEXT_SPEC = re.compile(r"[US]\d{1,9}", re.ASCII)
_TIME_SPEC = re.compile(r"[mM]8", re.ASCII)
_TIME_UNITS = {"Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns"}


def read_plain_pickle(data: bytes) -> Any:
    """The value of a pickle, of any protocol, that holds plain values only.

    Admits dict (also ordered), list, tuple, set, frozenset, str, bytes, bytearray, int, float,
    bool, None, the types of datetime with fixed offsets, and scalars of numpy, which become
    Python's own. Values that the pickle uses several times are shared, and can contain themselves;
    one made by hand can hold the admitted types and stand-ins themselves, which do nothing.

    Raises InvalidInput that names the first other type or function, or says what is malformed.
    """
    try:
        _look_through(data)
        return _PlainUnpickler(io.BytesIO(data)).load()
    except InvalidInput:
        raise
    except Exception as error:
        # What a malformed pickle makes of the C implementation isn't limited to UnpicklingError.
        raise InvalidInput(f"not a pickle of plain values: {error}") from error


def _look_through(data: bytes) -> None:
    ended = False
    # Raises ValueError for a length that goes beyond the data.
    for opcode, argument, _ in pickletools.genops(io.BytesIO(data)):
        if opcode.name in _REFUSED_OPCODES:
            raise InvalidInput(f"it uses the opcode {opcode.name}, which plain values don't need")
        # The memo is an array: storing at position 2³¹ takes 32 GiB.
        if opcode.name in _MEMO_OPCODES and isinstance(argument, int) and argument > len(data):
            raise InvalidInput(f"it stores at position {argument} of its memo, beyond its length")
        ended = opcode.name == "STOP"
    if not ended:
        raise InvalidInput("it is cut off")


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _ADMITTED.get((module, name))
        if found is None:
            raise InvalidInput(
                f"it asks for {module}.{name}, and only plain containers and scalars are read"
            )
        return found

    def persistent_load(self, pid: Any) -> NoReturn:
        raise InvalidInput("it refers to an object outside of itself")


class _StandIn:
    """What a pickle may call in place of a named function; nothing can be set on it."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise InvalidInput("it changes what it may only call")

    def __setstate__(self, state: Any) -> NoReturn:
        raise InvalidInput("it changes what it may only call")


class _ScalarType:
    """In place of a numpy.dtype, which would take any state; knows scalars only."""

    __slots__ = ("name", "order", "unit")

    def __init__(self, name: str) -> None:
        self.name = name
        self.order = "|"
        self.unit = ""

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, size, alignment, flags[, time unit])
        _, order, subarray, names, fields, *rest = state
        if (subarray, names, fields) != (None, None, None) or order not in ("<", ">", "|", "="):
            raise InvalidInput("it has a structured numpy.dtype")
        self.order = order
        if _TIME_SPEC.fullmatch(self.name):
            # unit, count of units, divisor, events; numpy writes only 1 for the last two.
            unit, count, *_ = rest[3][1]
            unit = unit.decode("ascii")
            if unit not in _TIME_UNITS or not isinstance(count, int):
                raise InvalidInput("it has a numpy time without a unit")
            self.unit = f"[{count}{unit}]"

    def scalar(self, data: bytes) -> Any:
        dtype = np.dtype(f"{self.order if self.order != '|' else '<'}{self.name}{self.unit}")
        if not dtype.itemsize:
            return "" if dtype.kind == "U" else b""
        # Copied out of the bytes: raises ValueError unless they have the dtype's length.
        value = np.frombuffer(data, dtype).reshape(())[()]
        if dtype.kind == "M":
            return None if np.isnat(value) else str(value)
        if dtype.kind == "m":
            return None if np.isnat(value) else float(value / np.timedelta64(1, "s"))
        return value.item()


def _dtype(spec: Any, *_: Any) -> _ScalarType:
    name = str(spec).lstrip("<>=|")
    for admitted in (_NUMBER_SPEC, _TEXT_SPEC, _TIME_SPEC):
        if admitted.fullmatch(name):
            return _ScalarType(name)
    raise InvalidInput(f"it has a numpy.dtype {str(spec)[:50]!r}, which is no plain scalar's")


def _scalar(kind: Any, data: Any = b"") -> Any:
    if not isinstance(kind, _ScalarType) or not isinstance(data, bytes):
        raise InvalidInput("it has a malformed numpy scalar")
    return kind.scalar(data)


def _encode(text: Any, encoding: Any) -> bytes:
    # How protocols 0 to 2 write bytes.
    if not isinstance(text, str) or encoding != "latin1":
        raise InvalidInput(f"it asks for _codecs.encode with {str(encoding)[:50]!r}")
    return text.encode("latin1")


def _bytes(*arguments: Any) -> bytes:
    # bytes(10**10) would fill the memory.
    if not arguments:
        return b""
    if isinstance(arguments[0], bytes) and len(arguments) == 1:
        return arguments[0]
    return _encode(*arguments)


_STAND_INS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "_codecs.encode": _encode,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    # What protocols 0 to 2 call builtins.
    "__builtin__.bytes": _bytes,
    "__builtin__.bytearray": _bytes,
}
_TYPES: dict[str, type] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "__builtin__.set": set,
    "__builtin__.frozenset": frozenset,
    "datetime.date": date,
    "datetime.datetime": datetime,
    "datetime.time": time,
    "datetime.timedelta": timedelta,
    "datetime.timezone": timezone,
}


def _split(path: str) -> tuple[str, str]:
    module, _, name = path.rpartition(".")
    return module, name


_ADMITTED: dict[tuple[str, str], Any] = {
    **{_split(path): _StandIn(make) for path, make in _STAND_INS.items()},
    **{_split(path): kind for path, kind in _TYPES.items()},
}
