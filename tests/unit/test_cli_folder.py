import json
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from storage_samples import (
    DIMENSION,
    FRAME,
    MODEL,
    TRANSCRIPT,
    find,
    segment,
    store_segments,
    stored,
    vectors_of,
)
from typer.testing import CliRunner

from deployments.client.cli import app
from deployments.core import telling as telling_module
from deployments.core.encoding import model_identity, model_source
from deployments.core.encoding.model_identity import read_identity
from deployments.core.encoding.model_source import find_model
from deployments.core.encoding.text_encoder import load_text_encoder
from deployments.core.folders.backup import back_up
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import Search
from deployments.core.storage import schema_sql

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "transcripts.jsonl"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        assert self.out.count("\n") == 1
        return json.loads(self.out)


def run(*arguments: object) -> Done:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def succeed(*arguments: object) -> Done:
    done = run(*arguments)
    assert (done.code, done.err) == (0, ""), done
    return done


def fail(*arguments: object) -> str:
    """The one line of the error."""
    done = run(*arguments)
    assert (done.code, done.out) == (1, ""), done
    assert done.err.startswith("Error: ")
    assert done.err.endswith("\n")
    return done.err


@pytest.fixture(autouse=True)
def index_dir(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """FAISS_INDEX_DIR is the fixtures' folder."""
    monkeypatch.setenv("FAISS_INDEX_DIR", str(folder))
    return folder


@pytest.fixture
def filled(open_index: Callable[[], SegmentIndex]) -> SegmentIndex:
    index = open_index()
    store_segments(index, 1, segment(1, "RSI", speaker="A"), segment("b", "MACD"))
    store_segments(index, "two", segment(1, "a chart"), kind=FRAME)
    return index


@pytest.fixture
def closed(filled: SegmentIndex) -> Path:
    filled.close()
    return filled.folder


@pytest.fixture
def sample_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMBEDDING_MODEL is the small model of the samples, which can't encode."""
    monkeypatch.setattr(model_source, "find_model", Path)
    monkeypatch.setattr(model_identity, "read_identity", lambda name, folder: MODEL)


COUNTS = {"transcript": 2, "frame": 1, "clip": 0}
MODEL_DOCUMENT = {
    "name": "sample-model",
    "fingerprint": MODEL.fingerprint,
    "dimension": DIMENSION,
}
MODELS_DOCUMENT = {"transcript": MODEL_DOCUMENT, "frame": MODEL_DOCUMENT, "clip": MODEL_DOCUMENT}


def transcripts(folder: Path) -> dict[Any, str]:
    with SegmentIndex.open(folder, MODEL) as index:
        assert index.verify() == []
        return {key: each.text for key, each in stored(index).items()}


TEXTS = {(1, 1): "RSI", (1, "b"): "MACD"}


def write_legacy(folder: Path, texts: list[str], vectors: Any = None) -> None:
    folder.mkdir(exist_ok=True)
    vectors = vectors_of(texts) if vectors is None else vectors
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(folder / "transcript_index.faiss"))
    rows = [
        {"media_item_id": 1, "segment_id": number, "text": text, "start_time": number}
        for number, text in enumerate(texts)
    ]
    (folder / "transcript_metadata.pkl").write_bytes(pickle.dumps(rows))


# Each command


def test_backup_and_restore_for_people(filled: SegmentIndex, tmp_path: Path) -> None:
    out = succeed("backup", tmp_path / "b").out
    assert "3 segments: 2 transcript, 1 frame, 0 clip\n" in out
    assert f"{filled.folder} was copied to {tmp_path / 'b'} (" in out
    assert "and verified" in out
    filled.close()
    out = succeed("restore", tmp_path / "b", "--index-dir", tmp_path / "new").out
    assert out == (
        "3 segments: 2 transcript, 1 frame, 0 clip\n"
        f"{tmp_path / 'new'} is restored from {tmp_path / 'b'}.\n"
    )
    assert transcripts(tmp_path / "new") == TEXTS


def test_backup_and_restore_for_programs(filled: SegmentIndex, tmp_path: Path) -> None:
    document = succeed("backup", tmp_path / "b", "--json").document
    assert document == {
        "folder": str(filled.folder),
        "backup": str(tmp_path / "b"),
        "models": MODELS_DOCUMENT,
        "commit_id": 2,
        "segments": COUNTS,
        "store_bytes": (tmp_path / "b" / "store.sqlite3").stat().st_size,
        "left_out": [],
    }
    store_segments(filled, 2, segment(1, "newer"))
    filled.close()
    document = succeed("restore", tmp_path / "b", "--force", "--json").document
    kept = Path(document.pop("kept"))
    assert document.pop("store_bytes") > 0
    assert document == {
        "folder": str(filled.folder),
        "backup": str(tmp_path / "b"),
        "models": MODELS_DOCUMENT,
        "commit_id": 2,
        "segments": COUNTS,
        "left_out": [],
    }
    assert transcripts(filled.folder) == TEXTS
    assert transcripts(kept) == {**TEXTS, (2, 1): "newer"}


def test_a_restore_by_force_says_where_the_old_index_is(closed: Path, tmp_path: Path) -> None:
    succeed("backup", tmp_path / "b")
    message = fail("restore", tmp_path / "b")
    assert "isn't empty" in message
    assert "--force" in message
    out = succeed("restore", tmp_path / "b", "--force").out
    (kept,) = tmp_path.glob("index.replaced-*")
    assert f"The index that was there before is in {kept}.\n" in out


def test_a_backup_says_what_it_left_out(closed: Path, tmp_path: Path) -> None:
    (closed / "frame_index.faiss").write_bytes(b"torn")
    assert (
        "Left out, to be rebuilt from the store: frame_index.faiss is cut off"
        in succeed("backup", tmp_path / "b").out
    )


def test_verify_of_a_whole_folder(closed: Path) -> None:
    assert succeed("verify").out == (
        f"3 segments: 2 transcript, 1 frame, 0 clip\n{closed} is whole (model sample-model).\n"
    )
    assert succeed("verify", closed, "--json").document == {
        "folder": str(closed),
        "problems": [],
        "models": MODELS_DOCUMENT,
        "commit_id": 2,
        "segments": COUNTS,
        "store_problems": [],
        "checkpoint_problems": [],
        "notes": [],
    }


def test_verify_lists_problems_and_fails(closed: Path) -> None:
    execute(closed, "UPDATE segments SET text='forged' WHERE seq=2")
    (closed / "transcript_index.faiss").unlink()
    (closed / "frame_index.faiss").write_bytes(b"torn")
    done = run("verify")
    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[1].startswith("Row 2 (transcript, media item 1, segment 'b') is not what was")
    assert lines[2].startswith("frame_index.faiss is cut off")
    assert lines[3].startswith("Note: transcript_index.faiss is missing")
    assert lines[4] == f"{closed} has 2 problems."
    done = run("verify", "--json")
    assert done.code == 1
    assert [problem.split()[0] for problem in done.document["problems"]] == [
        "Row",
        "frame_index.faiss",
    ]


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet"])
def test_export_and_import(filled: SegmentIndex, tmp_path: Path, name: str) -> None:
    path, new = tmp_path / name, tmp_path / "new"
    document = succeed("export", path, "--json").document
    assert document == {
        "folder": str(filled.folder),
        "file": str(path),
        "models": MODELS_DOCUMENT,
        "segments": COUNTS,
        "file_bytes": path.stat().st_size,
    }
    assert succeed("import", path, "--index-dir", new, "--json").document == {
        "folder": str(new),
        "file": str(path),
        "models": MODELS_DOCUMENT,
        "stored": {"records": 3, "changed": 3},
    }
    assert transcripts(new) == TEXTS
    assert succeed("import", path, "--index-dir", new).out == (
        f"{path}: 3 segments of model sample-model are in {new}, 0 of them new or changed.\n"
    )
    assert f"was exported to {path} (" in succeed("export", path).out


def test_a_format_can_be_chosen(closed: Path, tmp_path: Path) -> None:
    succeed("export", tmp_path / "x.data", "--format", "parquet")
    assert (tmp_path / "x.data").read_bytes()[:4] == b"PAR1"
    succeed("export", tmp_path / "x.parquet", "--format", "jsonl")
    assert (tmp_path / "x.parquet").read_bytes()[:1] == b"{"


@pytest.mark.usefixtures("sample_model")
def test_import_legacy_in_place(folder: Path) -> None:
    write_legacy(folder, ["RSI", "MACD", "Fibonacci"])
    out = succeed("import-legacy", "--check", "0").out
    assert f"Imported into {folder} as vectors of sample-model.\n" in out
    assert f"The old files are in {folder / 'legacy'}.\n" in out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    assert ["index", "IndexFlatL2"] in cells
    assert ["imported", "3"] in cells
    assert ["lowest cosine", "-"] in cells
    assert transcripts(folder) == {(1, 0): "RSI", (1, 1): "MACD", (1, 2): "Fibonacci"}
    assert "was imported already" in succeed("import-legacy", "--check", "0").out


@pytest.mark.usefixtures("sample_model")
def test_import_legacy_for_programs(folder: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    write_legacy(old, ["RSI", "", "MACD"], vectors_of(["RSI", "", "MACD"]) * [[1], [1], [0]])
    message = fail("import-legacy", old, "--check", "0", "--json")
    assert "transcript row 2: its vector is zero" in message
    document = succeed(
        "import-legacy", old, "--into", folder, "--check", "0", "--skip-bad-rows", "--json"
    ).document
    assert document == {
        "folder": str(folder),
        "model": MODEL_DOCUMENT,
        "legacy_folder": str(old),
        "types": {
            "transcript": {
                "index": "IndexFlatL2",
                "rows": 3,
                "imported": 2,
                "duplicates": 0,
                "without_metadata": 0,
                "without_text": 1,
                "skipped": [{"row": 2, "reason": "its vector is zero"}],
                "checked": 0,
                "lowest_cosine": None,
            }
        },
    }


@pytest.mark.usefixtures("sample_model")
def test_import_legacy_lists_what_it_skipped(tmp_path: Path) -> None:
    write_legacy(tmp_path / "old", ["a", "b"], vectors_of(["a", "b"]) * [[0], [1]])
    out = succeed("import-legacy", tmp_path / "old", "--check", "0", "--skip-bad-rows").out
    assert "Skipped transcript row 0: its vector is zero\n" in out


@pytest.mark.usefixtures("sample_model")
def test_an_import_that_was_finished_says_so(folder: Path) -> None:
    write_legacy(folder, ["RSI"])
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    succeed("import-legacy", "--check", "0")
    (folder / "transcript_metadata.pkl").write_bytes(kept["transcript_metadata.pkl"])
    out = succeed("import-legacy", "--check", "0").out
    assert out == (f"{folder} was imported already; its old files are in {folder / 'legacy'}.\n")
    assert not (folder / "transcript_metadata.pkl").exists()


# With the real model


@pytest.fixture(scope="module")
def real() -> tuple[list[str], Any]:
    """Some real segments, and their vectors by the default model."""
    lines = SAMPLES.read_text(encoding="utf-8").splitlines()[:24]
    texts = [json.loads(line)["text"] for line in lines]
    encoder = load_text_encoder("all-MiniLM-L6-v2", device="cpu")
    return texts, encoder.encode(encoder.tokenize(texts, "document"))


def test_real_vectors_pass_the_comparison_and_are_found(
    folder: Path, tmp_path: Path, real: tuple[list[str], Any]
) -> None:
    texts, vectors = real
    write_legacy(tmp_path / "old", texts, vectors * np.float32(3))
    document = succeed("import-legacy", tmp_path / "old", "--json").document
    report = document["types"]["transcript"]
    assert (report["imported"], report["checked"]) == (24, 20)
    assert report["lowest_cosine"] > 0.9999
    model = read_identity("all-MiniLM-L6-v2", find_model("all-MiniLM-L6-v2"))
    assert document["model"]["fingerprint"] == model.fingerprint
    with SegmentIndex.open(folder, model) as index:
        found = index.search([Search(TRANSCRIPT, 1)] * 24, vectors)
        assert [hits[0].segment.text for hits in found] == texts
        assert all(hits[0].cosine > 0.999999 for hits in found)


def test_real_vectors_of_other_texts_are_refused(
    folder: Path, tmp_path: Path, real: tuple[list[str], Any]
) -> None:
    texts, vectors = real
    write_legacy(tmp_path / "old", texts, np.roll(vectors, 1, axis=0))
    message = fail("import-legacy", tmp_path / "old", "--check", "5")
    assert "5 of 5 transcript texts that were encoded with all-MiniLM-L6-v2 are far" in message
    assert not (folder / "store.sqlite3").exists()
    assert succeed("import-legacy", tmp_path / "old", "--check", "0").out.count(" 24 ") == 2


def test_another_dimension_names_the_setting(tmp_path: Path) -> None:
    write_legacy(tmp_path / "old", ["RSI"])
    message = fail("import-legacy", tmp_path / "old", "--check", "0")
    assert "has vectors of 16 dimensions, but all-MiniLM-L6-v2 makes 384" in message
    assert "EMBEDDING_MODEL" in message


def test_the_old_vectors_are_not_taken_for_int8(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDING_PRECISION", "int8")
    write_legacy(tmp_path / "old", ["RSI"])
    message = fail("import-legacy", tmp_path / "old")
    assert "import them with EMBEDDING_PRECISION=float32" in message
    assert not (folder / "store.sqlite3").exists()


def test_a_missing_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_MODEL", str(tmp_path / "nowhere"))
    write_legacy(tmp_path / "old", ["RSI"])
    assert "nowhere' was found in none of three places" in fail("import-legacy", tmp_path / "old")


@pytest.mark.usefixtures("sample_model")
def test_without_an_encoder_the_default_comparison_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployments.core.encoding import text_encoder
    from deployments.core.errors import ModelError

    def unavailable(name: str, **options: Any) -> None:
        raise ModelError("no engine here")

    monkeypatch.setattr(text_encoder, "load_text_encoder", unavailable)
    write_legacy(tmp_path / "old", ["RSI"])
    assert fail("import-legacy", tmp_path / "old", "--check", "3") == "Error: no engine here\n"
    done = run("import-legacy", tmp_path / "old", "--json")
    assert done.code == 0
    assert done.err == "Vectors are not compared with the model: no engine here\n"
    assert done.document["types"]["transcript"]["checked"] == 0


# Folders, errors and usage


def test_a_folder_in_use_can_be_read_and_not_replaced(filled: SegmentIndex, tmp_path: Path) -> None:
    succeed("verify")
    succeed("backup", tmp_path / "b")
    succeed("export", tmp_path / "x.jsonl")
    write_legacy(tmp_path / "old", ["RSI"])
    assert "is in use by process" in fail("restore", tmp_path / "b", "--force")
    assert "is in use by process" in fail("import", tmp_path / "x.jsonl")
    assert "is in use by process" in fail("import-legacy", tmp_path / "old", "--check", "0")
    store_segments(filled, 3, segment(1, "goes on"))
    assert find(filled, "goes on", top_k=1)[0].cosine == 1.0


def execute(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "store.sqlite3")) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize("command", ["backup", "restore", "verify", "export", "import"])
def test_a_newer_version_is_refused_by_all_commands(
    closed: Path, tmp_path: Path, command: str
) -> None:
    succeed("export", tmp_path / "x.jsonl")
    execute(closed, f"UPDATE meta SET value={schema_sql.FORMAT + 1} WHERE key='format'")
    before = (closed / "store.sqlite3").read_bytes()
    arguments = {
        "backup": [tmp_path / "b"],
        "restore": [closed, "--index-dir", tmp_path / "new"],
        "verify": [],
        "export": [tmp_path / "y.jsonl"],
        "import": [tmp_path / "x.jsonl"],
    }
    message = fail(command, *arguments[command])
    assert f"{closed}/store.sqlite3 was written by a newer version of this service" in message
    assert "Start the newer version" in message
    assert (closed / "store.sqlite3").read_bytes() == before


@pytest.mark.parametrize("command", ["backup", "verify", "export", "import"])
def test_files_of_the_old_service_are_named(folder: Path, tmp_path: Path, command: str) -> None:
    with SegmentIndex.open(tmp_path / "other", MODEL):
        pass
    succeed("export", tmp_path / "x.jsonl", "--index-dir", tmp_path / "other")
    write_legacy(folder, ["RSI"])
    arguments = {
        "backup": [tmp_path / "b"],
        "verify": [],
        "export": [tmp_path / "y.jsonl"],
        "import": [tmp_path / "x.jsonl"],
    }
    assert "`embeddings-service import-legacy`" in fail(command, *arguments[command])


def test_the_index_folder_is_faiss_index_dir_or_the_option(
    closed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAISS_INDEX_DIR", "index")
    assert succeed("verify", "--json").document["folder"] == str(closed)
    monkeypatch.delenv("FAISS_INDEX_DIR")
    default = tmp_path / "data" / "processed" / "faiss"
    assert fail("verify") == (
        f"Error: {default} has no store.sqlite3: it is not an index folder of this service, or "
        "an empty one.\n"
    )
    assert succeed("backup", "b", "--index-dir", "index/../index", "--json").document == {
        "folder": str(closed),
        "backup": str(tmp_path / "b"),
        "models": MODELS_DOCUMENT,
        "commit_id": 2,
        "segments": COUNTS,
        "store_bytes": (tmp_path / "b" / "store.sqlite3").stat().st_size,
        "left_out": [],
    }


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAISS_INDEXDIR", "x")
    message = fail("verify")
    assert "FAISS_INDEXDIR" in message
    assert "did you mean FAISS_INDEX_DIR?" in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["backup"],
        ["restore"],
        ["export"],
        ["import"],
        ["nonsense"],
        ["verify", "--nonsense"],
        ["export", "x", "--format", "csv"],
        ["import-legacy", "--check", "-1"],
    ],
)
def test_wrong_usage_has_its_own_exit_code(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Error: " in done.err


def test_every_command_is_listed() -> None:
    out = succeed("--help").out
    for command in ("backup", "restore", "verify", "export", "import", "import-legacy"):
        assert f"\n  {command} " in out
        assert succeed(command, "--help").out.startswith("Usage: ")


def test_the_program_reports_errors_without_a_traceback(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("embeddings-service")
    done = subprocess.run([program, "verify", tmp_path / "nowhere"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: {tmp_path / 'nowhere'} has no store.sqlite3: it is not an index folder of this "
        "service, or an empty one.\n"
    )


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    program = (
        "import sys, deployments.client.cli\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(loaded & {'torch', 'ray', 'faiss', 'numpy', 'pydantic', 'onnxruntime', 'rich'})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("set()\n", 0), done.stderr


# What a person sees meanwhile


@pytest.mark.usefixtures("sample_model")
def test_long_work_shows_in_a_terminal_how_far_it_is(
    closed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, backup, file = tmp_path / "old", tmp_path / "b", tmp_path / "x.jsonl"
    write_legacy(old, ["RSI", "MACD"])
    commands: dict[tuple[object, ...], list[str]] = {
        ("backup", backup): ["Checking segments", "3"],
        ("verify",): ["Checking the clip vectors"],
        ("restore", backup, "--index-dir", tmp_path / "1"): ["Checking segments", "3"],
        ("export", file): ["Writing segments", "3 of 3"],
        ("export", file, "--salvage"): ["Writing segments", "3 of 3"],
        ("import", file, "--index-dir", tmp_path / "2"): ["Storing segments", "3 of 3"],
        ("import-legacy", old, "--check", 0, "--into", tmp_path / "3"): ["Checking the clip"],
    }
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # for Rich: this is a terminal
    for arguments, shown in commands.items():
        done = run(*arguments)
        assert done.code == 0, done
        for each in shown:
            assert each in done.err, arguments
        # Away again: the line is erased at the end.
        assert done.err.endswith("\x1b[2K"), arguments
        assert "Checking" not in done.out
    assert run("verify", "--json").err == ""


def test_long_work_tells_each_of_its_steps(closed: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []

    def tell(what: str, done: int, total: int | None) -> None:
        told.append((what, done, total))

    back_up(closed, tmp_path / "b", tell=tell)
    pages = next(total for what, _, total in told if what == "Copying pages of the store")
    assert pages
    assert ("Copying pages of the store", pages, pages) in told
    assert told[-2:] == [("Checking segments", 0, None), ("Checking segments", 3, None)]
    assert list(telling_module.told(tell, "counting", range(1200), 1200)) == list(range(1200))
    assert told[-4:] == [("counting", done, 1200) for done in (0, 500, 1000, 1200)]
