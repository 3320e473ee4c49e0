import builtins
import collections
import copyreg
import datetime
import functools
import io
import operator
import os
import pickle
import pickletools
import resource
import struct
import subprocess
import sys
import uuid
import zoneinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.core.errors import InvalidInput
from deployments.core.folders.restricted_pickle import read_plain_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
UTC = datetime.UTC


def exact(value: Any) -> Any:
    """The value with the type of everything in it."""
    if isinstance(value, dict):
        return type(value), [(exact(key), exact(each)) for key, each in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [exact(each) for each in value]
    return type(value), value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        [{"media_item_id": 1, "text": "RSI über 70", "start_time": 0.5, "more": None, "ok": True}],
        {0: {"a": [1, 2, (3, 4)]}, 7: {}, "8": {}},
        [2**70, -(2**70), 1e300, float("inf"), -0.0, "", "\x00", b"", b"\x00\xff", "nül\U0001f600"],
        {"tags": {"a", "b"}, "fixed": frozenset({1}), "none": set()},
        collections.OrderedDict([("b", 1), ("a", collections.OrderedDict())]),
        datetime.datetime(2025, 11, 20, 21, 0, 0, 123456),
        datetime.datetime(2025, 11, 20, 21, tzinfo=UTC),
        datetime.datetime(
            2025, 1, 2, 3, fold=1, tzinfo=datetime.timezone(datetime.timedelta(hours=-3.5), "NST")
        ),
        [datetime.date(2025, 2, 28), datetime.time(1, 2, 3, 4), datetime.timedelta(-1, 5, 7)],
    ],
)
def test_plain_values_come_back_exactly(value: Any, protocol: int) -> None:
    assert exact(read_plain_pickle(pickle.dumps(value, protocol))) == exact(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bytearrays_come_back_as_bytes_or_bytearrays(protocol: int) -> None:
    assert read_plain_pickle(pickle.dumps(bytearray(b"\x00x"), protocol)) == b"\x00x"


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("scalar", "plain"),
    [
        (np.int64(-7), -7),
        (np.uint8(255), 255),
        (np.int32(2**31 - 1), 2**31 - 1),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.float16(0.25), 0.25),
        (np.bool_(True), True),
        (np.str_("RSI ü"), "RSI ü"),
        (np.str_(""), ""),
        (np.bytes_(b"ab"), b"ab"),
        (np.datetime64("2025-11-20T21:00:00", "s"), "2025-11-20T21:00:00"),
        (np.datetime64("NaT", "ns"), None),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.array([258], ">i2")[0], 258),
    ],
)
def test_numpy_scalars_become_pythons_own(
    scalar: Any, plain: Any, protocol: int, module: bytes
) -> None:
    data = pickle.dumps(scalar, protocol)
    if protocol < 4:  # before version 2, numpy named its module otherwise
        data = data.replace(b"numpy._core.multiarray", module)
    assert exact(read_plain_pickle(data)) == exact(plain)


def test_numpy_integers_as_keys_become_pythons_own() -> None:
    rows = {np.int64(3): {"segment_id": np.int32(4)}}
    assert exact(read_plain_pickle(pickle.dumps(rows))) == exact({3: {"segment_id": 4}})


class Reduced:
    """Pickles as a call."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


class Plain:
    def __init__(self) -> None:
        self.text = "x"


class HasSlots:
    __slots__ = ("text",)


class MyDict(dict[Any, Any]):
    pass


MARK = "touch /tmp/restricted-pickle-was-run"
EVIL: dict[str, tuple[Any, str]] = {
    "os.system": (Reduced(os.system, (MARK,)), f"{os.system.__module__}.system"),
    "eval": (Reduced(eval, ("1",)), r"(builtins|__builtin__)\.eval"),
    "exec": (Reduced(exec, ("1",)), r"(builtins|__builtin__)\.exec"),
    "import": (Reduced(__import__, ("os",)), r"(builtins|__builtin__)\.__import__"),
    "getattr": (Reduced(getattr, ("", "join")), r"(builtins|__builtin__)\.getattr"),
    "open": (Reduced(open, ("/tmp/restricted-pickle-was-run", "w")), r"\.open"),
    "popen": (Reduced(subprocess.call, (["touch", "/tmp/x"],)), r"(subprocess|commands)\.\w+"),
    "partial": (functools.partial(os.system, MARK), r"functools\.partial"),
    "attrgetter": (operator.attrgetter("system"), r"operator\.attrgetter"),
    "methodcaller": (operator.methodcaller("system", MARK), r"operator\.methodcaller"),
    "list state": (
        Reduced(list, (), None, iter([Reduced(os.system, (MARK,))])),
        r"(builtins|__builtin__)\.list",
    ),
    "instance": (Plain(), r"(copyreg|copy_reg)\._reconstructor|test_restricted_pickle\.Plain"),
    "subclass of dict": (MyDict(a=1), r"_reconstructor|test_restricted_pickle\.MyDict"),
    "uuid": (uuid.UUID(int=1), r"_reconstructor|uuid\.UUID|uuid\.SafeUUID"),
    "path": (Path("a"), r"pathlib\.PosixPath"),
    "complex": (1j, r"(builtins|__builtin__)\.complex"),
    "array": (np.zeros(3), r"numpy\S*\.(_reconstruct|_frombuffer)"),
    "object array": (
        np.array([Reduced(os.system, (MARK,))], dtype=object),
        rf"numpy\S*\.(_reconstruct|_frombuffer)|{os.system.__module__}\.system",
    ),
    "zone": (
        datetime.datetime(2025, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
        r"zoneinfo\.ZoneInfo|\.getattr",
    ),
    "function": (operator.add, r"_?operator\.add"),
    "type": (int, r"(builtins|__builtin__)\.(int|long)"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", EVIL)
def test_everything_else_is_refused_by_its_name(name: str, protocol: int) -> None:
    value, pattern = EVIL[name]
    for nested in (value, [{"text": "x"}, {"extra": {"deep": [value]}}], {0: {"tags": (value,)}}):
        with pytest.raises(InvalidInput, match=rf"asks for \S*{pattern}"):
            read_plain_pickle(pickle.dumps(nested, protocol))
    assert not Path("/tmp/restricted-pickle-was-run").exists()


def test_a_class_with_slots_is_refused() -> None:
    value = HasSlots()
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(InvalidInput, match=r"test_restricted_pickle\.HasSlots"):
            read_plain_pickle(pickle.dumps(value, protocol))


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x02cos\nsystem\n(S'true'\nt\x81.",  # NEWOBJ
        b"\x80\x04cos\nsystem\n)}\x92.",  # NEWOBJ_EX
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",  # STACK_GLOBAL
        # The name is put together so that no single string gives it away.
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93\x8c\x04true\x85R.",
        b"\x80\x04\x8c\x08builtins\x8c\x10getattr.__call__\x93.",  # a dotted name
        b"\x80\x04\x8c\x08datetime\x8c\x08sys.exit\x93)R.",
        b"\x80\x04\x8c\x05numpy\x8c\x0bdtype.mro()\x93)R.",
    ],
)
def test_a_program_by_hand_is_refused(program: bytes) -> None:
    with pytest.raises(InvalidInput, match="it asks for"):
        read_plain_pickle(program)


def test_extensions_are_refused_even_if_the_process_knows_them() -> None:
    copyreg.add_extension("os", "system", 240)
    try:
        with pytest.raises(InvalidInput, match="EXT1"):
            read_plain_pickle(b"\x80\x02\x82\xf0(U\x04truet\x85R.")
        # Known from an earlier pickle, it would not even pass find_class.
        pickle.loads(b"\x80\x02\x82\xf0.")
        with pytest.raises(InvalidInput, match="EXT1"):
            read_plain_pickle(b"\x80\x02\x82\xf0(U\x04truet\x85R.")
    finally:
        copyreg.remove_extension("os", "system", 240)
        copyreg.clear_extension_cache()


@pytest.mark.parametrize("program", [b"Pother\n.", b"\x80\x02U\x01aQ."])
def test_persistent_ids_are_refused(program: bytes) -> None:
    with pytest.raises(InvalidInput, match="PERSID"):
        read_plain_pickle(program)


STAND_IN = b"\x80\x02c_codecs\nencode\n"


@pytest.mark.parametrize(
    "program",
    [
        STAND_IN + b"}U\x05_makeU\x01xsb.",  # BUILD with a dict
        STAND_IN + b"N}U\x05_makeU\x01xs\x86b.",  # BUILD with slots
        STAND_IN + b"U\x05_makeU\x01xs.",  # SETITEM
        STAND_IN + b"U\x01xa.",  # APPEND
        b"\x80\x02cdatetime\ndatetime\n}U\x03nowU\x01xsb.",  # a type's attribute
        b"\x80\x02cdatetime\ndatetime\nN}U\x03nowU\x01xs\x86b.",
    ],
)
def test_what_may_be_called_may_not_be_changed(program: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_plain_pickle(program)
    assert read_plain_pickle(pickle.dumps(b"\xff", 2)) == b"\xff"
    assert callable(datetime.datetime.now)


def dtype_pickle(spec: bytes, state: bytes = b"") -> bytes:
    head = b"\x80\x02cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\nU" + bytes([len(spec)]) + spec
    return head + b"\x89\x88\x87R" + state + b"U\x00\x86R."


@pytest.mark.parametrize(
    "program",
    [
        dtype_pickle(b"O8"),
        dtype_pickle(b"V2000000000"),
        dtype_pickle(b"U2000000000"),
        dtype_pickle(b"i8,O"),
        dtype_pickle(b"(1000000,1000000)i8"),
        dtype_pickle(b"c16"),
        dtype_pickle(b"i8"),  # no data
        dtype_pickle(b"i8", b"(K\x03U\x01<K\x01NNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"),
        dtype_pickle(b"i8", b"K\x01b"),
        dtype_pickle(b"M8"),
    ],
)
def test_a_dtype_of_anything_but_a_scalar_is_refused(program: bytes) -> None:
    assert pickletools.dis(program, io.StringIO()) is None  # well-formed as a pickle
    with pytest.raises(InvalidInput):
        read_plain_pickle(program)


BOMBS = {
    "memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "memo by text": b"Np2147483647\n.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b"N.",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"N.",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**36) + b"N.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b"N.",
    "integer": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"N.",
    "bytes of a length": b"\x80\x03cbuiltins\nbytes\nJ\x00\x00\x00\x7f\x85R.",
    "bytearray of a length": b"\x80\x03cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85R.",
    "digits": b"L" + b"9" * 1_000_000 + b"L\n.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_few_bytes_do_not_fill_the_memory(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidInput):
        read_plain_pickle(BOMBS[name])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


@pytest.mark.parametrize("data", [b"", b".", b"N", b"garbage", b"\x80\x09N.", b"\x80\x02(", b"]a."])
def test_what_is_no_pickle_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_plain_pickle(data)


def test_a_pickle_that_was_cut_off_anywhere_is_refused() -> None:
    data = pickle.dumps([{"text": "x" * 300, "id": np.int64(1), "at": datetime.datetime.now(UTC)}])
    for length in range(len(data)):
        with pytest.raises(InvalidInput):
            read_plain_pickle(data[:length])


def test_random_changes_run_nothing_and_raise_nothing_else() -> None:
    data = pickle.dumps([{"text": "abc", "id": np.int64(1), "at": datetime.datetime.now(UTC)}], 2)
    random = np.random.default_rng(0)
    plain = (list, dict, tuple, str, bytes, bytearray, int, float, bool, type(None), set, frozenset)
    for _ in range(3000):
        changed = bytearray(data)
        for position in random.integers(0, len(data), random.integers(1, 4)):
            changed[position] = random.integers(0, 256)
        try:
            value = read_plain_pickle(bytes(changed))
        except InvalidInput:
            continue
        assert isinstance(value, plain) or type(value).__module__ in (
            "builtins",
            "datetime",
            "deployments.core.folders.restricted_pickle",
        ), value


def test_nothing_is_imported_for_a_name() -> None:
    assert "antigravity" not in sys.modules
    with pytest.raises(InvalidInput, match=r"antigravity\.fly"):
        read_plain_pickle(b"cantigravity\nfly\n.")
    assert "antigravity" not in sys.modules
    assert builtins.eval is eval
