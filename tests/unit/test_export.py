import base64
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from storage_samples import (
    CLIP,
    DIMENSION,
    FRAME,
    MODEL,
    MODELS,
    TRANSCRIPT,
    find,
    random_units,
    segment,
    store_segments,
    stored,
    upsert_of,
    vector_of,
    with_vectors,
)

from deployments.core.errors import (
    FolderLocked,
    InvalidInput,
    StoreDamaged,
    StoreError,
    StoreMismatch,
)
from deployments.core.folders import exchange_jsonl, export
from deployments.core.folders.export import Format, export_folder, import_file
from deployments.core.index import bulk_records
from deployments.core.index.bulk_records import Record, store_records
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, ModelIdentity, Segment, Upsert, UpsertResult
from deployments.core.storage import schema_sql

SUFFIXES = ["jsonl", "parquet"]

ODD = [
    Segment(1, "times as integers", 0, 2**53 - 1),
    Segment("1b", "times as floats", 0.1, 1e300),
    Segment("two", "no times"),
    Segment(-(2**63), "", -0.0, 2**62),
    Segment(2**63 - 1, 'quotes " \\ and \n lines \u2028 \U0001f600', 1.0, None),
    Segment(
        "10",
        "metadata",
        None,
        1,
        {"b": [1, 2.0, None, True, {"x": "ü"}], "a": {}, "n": 2**63 - 1, "f": 0.1, "": ""},
    ),
]


@pytest.fixture(params=SUFFIXES)
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Where to export to, once for each form."""
    return tmp_path / f"everything.{request.param}"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """A folder to import to."""
    return tmp_path / "new"


@pytest.fixture
def filled(open_index: Callable[[], SegmentIndex]) -> SegmentIndex:
    index = open_index()
    store_segments(index, 1, *ODD)
    store_segments(index, "1x", *ODD[:2], kind=FRAME)
    store_segments(index, 3, segment(1), segment(2, speaker="A"), kind=CLIP)
    store_segments(index, 1, segment("1b", "changed"))
    truncated = with_vectors(Upsert(TRANSCRIPT, "long", (segment(1), segment(2))))
    index.apply([Upsert(**{**fields(truncated), "truncated_positions": (1,)})])
    return index


def fields(request: Upsert) -> dict[str, Any]:
    return {name: getattr(request, name) for name in Upsert.__slots__}


def rows(folder: Path) -> list[tuple[Any, ...]]:
    """Everything in the store but its sequence numbers and checksums, in order."""
    with closing(sqlite3.connect(folder / "store.sqlite3")) as connection:
        return connection.execute(
            "SELECT embedding_type, media_item_id, typeof(media_item_id), segment_id, "
            "typeof(segment_id), text, start_time, typeof(start_time), end_time, "
            "typeof(end_time), metadata, text_hash, truncated, vector "
            "FROM segments JOIN vectors USING (seq) ORDER BY seq"
        ).fetchall()


def execute(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "store.sqlite3")) as connection, connection:
        connection.execute(statement)


# Round trips


def test_everything_comes_back_exactly(filled: SegmentIndex, file: Path, new: Path) -> None:
    exported = export_folder(filled.folder, file)
    assert exported.models == MODELS
    assert exported.segments == {TRANSCRIPT: 8, FRAME: 2, CLIP: 2}
    assert exported.file_bytes == file.stat().st_size
    imported = import_file(file, new)
    assert (imported.models, imported.stored.records, imported.stored.changed) == (MODELS, 12, 12)
    filled.close()
    assert len(rows(new)) == 12
    assert rows(new) == rows(filled.folder)
    with SegmentIndex.open(new, MODEL) as index:
        assert index.verify() == []
        assert find(index, "metadata", top_k=1)[0].segment == ODD[5]
        assert find(index, "metadata", top_k=1)[0].cosine == 1.0
        assert repr(stored(index)[1, -(2**63)].start_time) == "-0.0"


def test_vectors_that_are_not_those_of_their_texts_stay_so(
    index: SegmentIndex, file: Path, new: Path
) -> None:
    own = {"embedding": vector_of("an image").tobytes()}
    segments = [Segment(1, "", **own), Segment(2, "chart", **own), Segment(3, "chart")]
    store_segments(index, 1, *segments, kind=FRAME)
    export_folder(index.folder, file)
    assert import_file(file, new).stored.changed == 3
    assert import_file(file, new).stored.changed == 0
    assert rows(new) == rows(index.folder)
    with SegmentIndex.open(new, MODEL) as again:
        request = upsert_of(1, *segments, kind=FRAME)
        assert again.apply([request]) == [UpsertResult(stored=3)]


def test_parquet_from_before_there_were_other_vectors(
    filled: SegmentIndex, tmp_path: Path, new: Path
) -> None:
    path = tmp_path / "x.parquet"
    export_folder(filled.folder, path)
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.drop_columns(["own_vector"]), path)
    assert import_file(path, new).stored.changed == 12
    filled.close()
    assert rows(new) == rows(filled.folder)


def test_a_second_round_trip_is_the_same_file(
    filled: SegmentIndex, tmp_path: Path, new: Path
) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    export_folder(filled.folder, first)
    import_file(first, new)
    export_folder(new, second)
    assert first.read_bytes() == second.read_bytes()


def test_the_forms_can_be_exchanged(filled: SegmentIndex, tmp_path: Path) -> None:
    export_folder(filled.folder, tmp_path / "1.jsonl")
    import_file(tmp_path / "1.jsonl", tmp_path / "a")
    export_folder(tmp_path / "a", tmp_path / "2.data", Format.PARQUET)
    import_file(tmp_path / "2.data", tmp_path / "b")
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_an_empty_index_comes_back(index: SegmentIndex, file: Path, new: Path) -> None:
    assert export_folder(index.folder, file).segments == {TRANSCRIPT: 0, FRAME: 0, CLIP: 0}
    assert import_file(file, new).stored.records == 0
    with SegmentIndex.open(new, MODEL) as again:
        assert again.stats().models == MODELS


def test_many_rows_of_interleaved_media_items_keep_their_order(
    index: SegmentIndex, file: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 2500
    vectors = random_units(count, seed=1)
    records = [
        Record(TRANSCRIPT if number % 3 else FRAME, number % 5, segment(number), vectors[number])
        for number in range(count)
    ]
    assert store_records(index, records).changed == count
    export_folder(index.folder, file)
    assert import_file(file, new).stored.changed == count
    index.close()
    assert rows(new) == rows(index.folder)
    assert [row[3] for row in rows(new)] == list(range(count))


def test_an_export_beside_writes_is_of_one_moment(
    index: SegmentIndex, file: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_segments(index, 1, *(segment(number) for number in range(5)))
    counts = export.FolderView.counts

    def write_meanwhile(view: Any) -> Any:
        found = counts(view)
        store_segments(index, 2, segment(1))
        index.delete_media(1)
        return found

    monkeypatch.setattr(export.FolderView, "counts", write_meanwhile)
    assert export_folder(index.folder, file).segments[TRANSCRIPT] == 5
    monkeypatch.undo()
    import_file(file, new)
    with SegmentIndex.open(new, MODEL) as again:
        assert set(stored(again)) == {(1, number) for number in range(5)}


# The files, as other programs see them


def test_json_lines_can_be_read_by_hand(index: SegmentIndex, tmp_path: Path) -> None:
    store_segments(index, 7, Segment("a", "RSI ü", 1, 2.5, {"speaker": "A"}))
    export_folder(index.folder, tmp_path / "x.jsonl")
    header, line = (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(header) == {
        "format": "embeddings-service-export",
        "version": 2,
        "models": dict.fromkeys(EmbeddingType, asdict(MODEL)),
        "segments": 1,
    }
    document = json.loads(line)
    vector = np.frombuffer(base64.b64decode(document.pop("vector")), "<f4")
    assert np.array_equal(vector, vector_of("RSI ü"))
    assert document == {
        "embedding_type": "transcript",
        "media_item_id": 7,
        "segment_id": "a",
        "start_time": 1,
        "end_time": 2.5,
        "text": "RSI ü",
        "metadata": {"speaker": "A"},
        "truncated": False,
        "own_vector": False,
    }
    assert "RSI ü" in line


def test_parquet_has_a_column_for_each_field(index: SegmentIndex, tmp_path: Path) -> None:
    store_segments(index, 7, Segment("a", "RSI", 1, 2.5, {"speaker": "A"}))
    export_folder(index.folder, tmp_path / "x.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    (row,) = table.to_pylist()
    assert np.array_equal(np.array(row.pop("vector"), np.float32), vector_of("RSI"))
    assert row == {
        "embedding_type": "transcript",
        "media_item_id": "7",
        "media_item_id_is_integer": True,
        "segment_id": "a",
        "segment_id_is_integer": False,
        "start_time": 1.0,
        "start_time_integer": 1,
        "end_time": 2.5,
        "end_time_integer": None,
        "text": "RSI",
        "metadata": '{"speaker":"A"}',
        "truncated": False,
        "own_vector": False,
    }
    header = json.loads(table.schema.metadata[b"embeddings-service"])
    assert header["models"]["frame"]["name"] == "sample-model"


# Into an existing folder


def test_an_import_adds_to_what_is_there(filled: SegmentIndex, file: Path, new: Path) -> None:
    export_folder(filled.folder, file)
    with SegmentIndex.open(new, MODEL) as index:
        store_segments(index, 50, segment(1, "was there"))
        store_segments(index, 1, segment("two", "older", speaker="B"), segment("1b", "changed"))
    imported = import_file(file, new)
    assert imported.stored.records == 12
    assert import_file(file, new).stored.changed == 0
    with SegmentIndex.open(new, MODEL) as index:
        assert index.verify() == []
        found = stored(index)
        assert found[50, 1].text == "was there"
        assert found[1, "two"] == ODD[2]
        assert len(found) == 9


def test_another_model_is_refused(filled: SegmentIndex, file: Path, new: Path) -> None:
    export_folder(filled.folder, file)
    other = ModelIdentity("other-model", "cd" * 32, DIMENSION)
    with SegmentIndex.open(new, other):
        pass
    with pytest.raises(
        StoreMismatch, match=r"of model sample-model .* of other-model .*new folder"
    ):
        import_file(file, new)


def test_a_folder_in_use_is_refused(filled: SegmentIndex, file: Path) -> None:
    export_folder(filled.folder, file)
    with pytest.raises(FolderLocked):
        import_file(file, filled.folder)


# What can't be exported or imported


def test_a_damaged_row_is_not_exported(filled: SegmentIndex, file: Path) -> None:
    filled.close()
    file.write_bytes(b"from yesterday")
    execute(filled.folder, "UPDATE segments SET text='forged' WHERE seq=3")
    with pytest.raises(StoreDamaged, match=r"Row 3 .* is not what was stored"):
        export_folder(filled.folder, file)
    execute(filled.folder, "DELETE FROM vectors WHERE seq=1")
    with pytest.raises(StoreDamaged, match=r"Row 1 .* is not what was stored"):
        export_folder(filled.folder, file)
    assert file.read_bytes() == b"from yesterday"
    assert [path.name for path in file.parent.iterdir() if "everything" in path.name] == [file.name]


def test_a_newer_store_is_not_exported(filled: SegmentIndex, file: Path) -> None:
    filled.close()
    execute(filled.folder, f"UPDATE meta SET value={schema_sql.FORMAT + 1} WHERE key='format'")
    with pytest.raises(StoreMismatch, match="newer version"):
        export_folder(filled.folder, file)
    with pytest.raises(StoreMismatch, match="newer version"):
        import_file(exported_elsewhere(file), filled.folder)


def exported_elsewhere(file: Path) -> Path:
    with SegmentIndex.open(file.parent / "elsewhere", MODEL) as index:
        store_segments(index, 1, segment(1))
    export_folder(file.parent / "elsewhere", file)
    return file


def test_a_folder_without_a_store_is_not_exported(tmp_path: Path, file: Path) -> None:
    with pytest.raises(StoreError, match=r"has no store\.sqlite3"):
        export_folder(tmp_path / "nowhere", file)
    assert not file.exists()


def test_a_folder_that_can_not_be_written_is_named(filled: SegmentIndex, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"Cannot write .*nowhere"):
        export_folder(filled.folder, tmp_path / "nowhere" / "x.jsonl")
    with pytest.raises(StoreError, match=r"Cannot read .*nowhere"):
        import_file(tmp_path / "nowhere" / "x.jsonl", tmp_path / "new")


def lines_of(filled: SegmentIndex, path: Path) -> list[dict[str, Any]]:
    export_folder(filled.folder, path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write_lines(path: Path, lines: list[Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"embedding_type": "audio"}, "line 4: embedding_type is 'audio'"),
        ({"embedding_type": ["clip"]}, "line 4: embedding_type is"),
        ({"vector": "%%%"}, "line 4: vector is no base64"),
        ({"vector": [1.0]}, "line 4: vector is no base64"),
        ({"vector": "AAAA"}, "line 4: vector has 3 bytes, expected 64"),
        ({"metadata": 3}, "line 4: metadata is a int"),
        ({"vector": base64.b64encode(bytes(64)).decode()}, "vector 2 has length 0, expected 1"),
        ({"text": 3}, "text is int, expected a string"),
        ({"media_item_id": True}, "media_item_id is True"),
        ({"segment_id": None}, "segment id is None"),
        ({"start_time": "1"}, "start_time is '1'"),
    ],
)
def test_a_wrong_line_is_named(
    filled: SegmentIndex, tmp_path: Path, new: Path, change: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "x.jsonl"
    lines = lines_of(filled, path)
    lines[3].update(change)
    write_lines(path, lines)
    with pytest.raises(InvalidInput) as raised:
        import_file(path, new)
    assert reason in raised.value.detail
    assert raised.value.detail.startswith(f"{path} can't be imported: ")
    # Corrected, the same file is imported as if nothing had been.
    export_folder(filled.folder, path)
    import_file(path, new)
    with SegmentIndex.open(new, MODEL) as index:
        assert len(stored(index)) == 8


@pytest.mark.parametrize("lacking", ["embedding_type", "media_item_id", "segment_id", "text"])
def test_a_line_that_lacks_a_field_is_named(
    filled: SegmentIndex, tmp_path: Path, new: Path, lacking: str
) -> None:
    path = tmp_path / "x.jsonl"
    lines = lines_of(filled, path)
    del lines[2][lacking]
    write_lines(path, lines)
    with pytest.raises(InvalidInput, match=f"line 3: it lacks {lacking}"):
        import_file(path, new)


def test_fields_with_a_default_may_be_left_out(
    filled: SegmentIndex, tmp_path: Path, new: Path
) -> None:
    path = tmp_path / "x.jsonl"
    header, *lines = lines_of(filled, path)
    del header["segments"]
    (line,) = [line for line in lines if line["segment_id"] == "two"]
    for name in ("start_time", "end_time", "metadata", "truncated"):
        del line[name]
    write_lines(path, [header, {**line, "extra": "ignored"}])
    assert import_file(path, new).stored.records == 1
    with SegmentIndex.open(new, MODEL) as index:
        assert stored(index) == {(1, "two"): ODD[2]}


def test_a_repeated_segment_is_replaced_by_the_later(
    filled: SegmentIndex, tmp_path: Path, new: Path
) -> None:
    path = tmp_path / "x.jsonl"
    header, *lines = lines_of(filled, path)
    del header["segments"]
    write_lines(path, [header, *lines, {**lines[0], "metadata": {"later": True}}])
    assert import_file(path, new).stored.records == 13
    with SegmentIndex.open(new, MODEL) as index:
        assert len(stored(index)) == 8
        assert stored(index)[1, 1].metadata == {"later": True}


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.99])
def test_a_file_that_was_cut_off_is_refused_before_anything_is_stored(
    filled: SegmentIndex, file: Path, new: Path, kept: float
) -> None:
    export_folder(filled.folder, file)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InvalidInput, match="can't be imported"):
        import_file(file, new)
    assert not new.exists()


def test_a_header_without_a_count_takes_what_follows(
    filled: SegmentIndex, tmp_path: Path, new: Path
) -> None:
    path = tmp_path / "x.jsonl"
    header, *lines = lines_of(filled, path)
    del header["segments"]
    write_lines(path, [header, *lines[:3]])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert import_file(path, new).stored.records == 3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"text\n",
        b"[]\n",
        b'{"format": "other"}\n',
        b"\xff\xfe\n",
        b"[" * 100_000,
        b"PAR1",
    ],
)
def test_another_file_is_refused(tmp_path: Path, new: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InvalidInput, match="can't be imported"):
        import_file(tmp_path / "x", new)
    assert not new.exists()


def test_a_line_without_end_does_not_fill_the_memory(
    tmp_path: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_jsonl, "_MAX_LINE_BYTES", 1000)
    (tmp_path / "x").write_bytes(b'{"format": "' + b"x" * 2000)
    with pytest.raises(InvalidInput, match="a line of more than 1000 bytes"):
        import_file(tmp_path / "x", new)


def test_another_parquet_file_is_refused(tmp_path: Path, new: Path) -> None:
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), path)
    with pytest.raises(InvalidInput, match="was not exported by this service"):
        import_file(path, new)


def test_changed_columns_are_refused(filled: SegmentIndex, tmp_path: Path, new: Path) -> None:
    path = tmp_path / "x.parquet"
    export_folder(filled.folder, path)
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.drop_columns(["truncated"]), path)
    with pytest.raises(InvalidInput, match="its columns aren't those of an export"):
        import_file(path, new)
    pyarrow.parquet.write_table(table.slice(1), path)
    with pytest.raises(InvalidInput, match="its header says 12 segments, but it has 11"):
        import_file(path, new)


def test_a_damaged_page_is_refused(index: SegmentIndex, tmp_path: Path, new: Path) -> None:
    store_segments(index, 1, *(segment(number) for number in range(200)))
    path = tmp_path / "x.parquet"
    export_folder(index.folder, path)
    data = bytearray(path.read_bytes())
    position = data.find(vector_of("text of 150").tobytes()[8:16])
    if position < 0:  # compressed; then anywhere in the last column
        position = len(data) // 2
    data[position] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match="can't be read as Parquet"):
        import_file(path, new)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_newer_file_is_refused(
    filled: SegmentIndex, tmp_path: Path, new: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"x.{suffix}"
    monkeypatch.setattr("deployments.core.folders.exchange_header.VERSION", 3)
    export_folder(filled.folder, path)
    monkeypatch.undo()
    with pytest.raises(StoreMismatch, match=r"exported by a newer version .*format 3"):
        import_file(path, new)


def test_without_pyarrow_parquet_is_refused_and_json_lines_work(
    filled: SegmentIndex, tmp_path: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_folder(filled.folder, tmp_path / "x.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidInput, match=r"pip install 'embeddings-service\[parquet\]'"):
        export_folder(filled.folder, tmp_path / "y.parquet")
    with pytest.raises(InvalidInput, match=r"pip install 'embeddings-service\[parquet\]'"):
        import_file(tmp_path / "x.parquet", new)
    export_folder(filled.folder, tmp_path / "x.jsonl")
    assert import_file(tmp_path / "x.jsonl", new).stored.records == 12


# Size and kills

MEASURE = """
import resource, sys
from pathlib import Path
import pyarrow.parquet
from deployments.core.folders.export import export_folder
from deployments.core.folders import exchange_jsonl, exchange_parquet
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
for form, suffix in (exchange_jsonl, "jsonl"), (exchange_parquet, "parquet"):
    file = Path(sys.argv[2]) / f"x.{suffix}"
    export_folder(Path(sys.argv[1]), file)
    assert sum(1 for _ in form.read_records(file, form.read_header(file))) == 8000
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_file(index: SegmentIndex, memory_folder: Path) -> None:
    text = "x" * 10_000
    vectors = random_units(8000, seed=2)
    store_records(
        index,
        (Record(TRANSCRIPT, 1, segment(n, f"{n} {text}"), vectors[n]) for n in range(8000)),
    )
    index.close()
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, index.folder, memory_folder],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60, f"{done.stdout} MiB for 80 MB of text"


def test_an_import_that_is_killed_can_be_repeated(
    index: SegmentIndex, tmp_path: Path, memory_folder: Path
) -> None:
    count = 8000
    vectors = random_units(count, seed=2)
    store_records(index, (Record(TRANSCRIPT, n // 9, segment(n), vectors[n]) for n in range(count)))
    file, new = tmp_path / "x.jsonl", memory_folder / "new"
    export_folder(index.folder, file)
    index.close()
    program = (
        "import sys; from pathlib import Path\n"
        "from deployments.core.folders.export import import_file\n"
        "print('ready', flush=True); import_file(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    found = []
    for rows_first in (1, 2001, 4001):
        process = subprocess.Popen(
            [sys.executable, "-c", program, file, new], stdout=subprocess.PIPE
        )
        while process.poll() is None and stored_rows(new) < rows_first:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found.append(stored_rows(new))
        with SegmentIndex.open(new, MODEL) as again:
            assert again.verify() == []
    assert 0 < found[0] < count
    assert import_file(file, new).stored.records == count
    assert rows(new) == rows(index.folder)


def stored_rows(folder: Path) -> int:
    try:
        with closing(
            sqlite3.connect(f"file:{folder / 'store.sqlite3'}?mode=ro", uri=True)
        ) as connection:
            return int(connection.execute("SELECT count(*) FROM segments").fetchone()[0])
    except sqlite3.Error:
        return 0


def test_records_of_one_name_in_two_forms_come_back_in_their_own(index: SegmentIndex) -> None:
    vectors = random_units(4)
    names: list[tuple[Any, Any]] = [(1, 1), ("1", 2), (1, "3"), ("1", "2")]
    store_records(
        index,
        [
            Record(TRANSCRIPT, media, segment(name), vectors[n])
            for n, (media, name) in enumerate(names)
        ],
    )
    assert set(stored(index)) == {(1, 1), (1, "3"), ("1", "2")}
    assert {type(media) for media, _ in stored(index)} == {int, str}
    assert bulk_records.Stored() == store_records(index, [])
