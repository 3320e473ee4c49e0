import os
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from legacy_samples import (
    FORMS,
    flat_l2,
    hashes,
    hnsw,
    imported_transcripts,
    ivf,
    mapped,
    refusal,
    row,
    texts,
    write_legacy,
)
from storage_samples import (
    CLIP,
    DIMENSION,
    FRAME,
    MODEL,
    TRANSCRIPT,
    find,
    random_units,
    segment,
    store_segments,
    stored,
)

from deployments.core.folders.folder_verify import verify_folder
from deployments.core.folders.legacy_import import ImportedLegacy, import_legacy
from deployments.core.folders.legacy_types import ImportedType
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import Segment, Vectors


@pytest.mark.parametrize("as_dict", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_index_is_imported(old: Path, new: Path, form: str, as_dict: bool) -> None:
    lengths = np.linspace(0.5, 3, 12, dtype=np.float32)[:, None]
    rows = [row(number, speaker=f"S{number}") for number in range(12)]
    metadata: Any = {np.int64(each): rows[each] for each in range(12)} if as_dict else rows
    write_legacy(old, texts(12) * lengths, metadata, form=FORMS[form])
    before = hashes(old)
    report = import_legacy(old, new, MODEL)
    assert report == ImportedLegacy({TRANSCRIPT: ImportedType(form, 12, 12)}, old)
    assert hashes(old) == before
    assert verify_folder(new).problems == []
    with SegmentIndex.open(new, MODEL) as index:
        assert index.stats().vectors == {TRANSCRIPT: 12, FRAME: 0, CLIP: 0}
        for number in range(12):
            (hit,) = find(index, f"text {number}", top_k=1)
            assert hit.cosine == pytest.approx(1, abs=1e-6)
            assert hit.media_item_id == 1 + number // 3
            assert hit.segment == Segment(
                number,
                f"text {number}",
                number * 2.5,
                number * 2.5 + 2,
                {"speaker": f"S{number}"},
            )
        # In the order of the old rows.
        assert [hit.sequence for hit in find(index, "anything")] != []
        by_sequence = sorted(find(index, "anything"), key=lambda hit: hit.sequence)
        assert [hit.segment.id for hit in by_sequence] == list(range(12))


@pytest.mark.parametrize("kind", [faiss.IndexIDMap, faiss.IndexIDMap2])
@pytest.mark.parametrize("form", ["IndexFlatL2", "IndexHNSWFlat"])
def test_an_index_with_ids_of_its_own_is_imported(
    old: Path, new: Path, form: str, kind: Any
) -> None:
    ids = [40, 7, 1000, 3]
    metadata = {name: row(number) for number, name in enumerate(ids)}
    write_legacy(old, texts(4), metadata, form=mapped(FORMS[form], ids, kind))
    report = import_legacy(old, new, MODEL)
    assert report.types[TRANSCRIPT].index == f"{kind.__name__} of {form}"
    with SegmentIndex.open(new, MODEL) as index:
        for number in range(4):
            (hit,) = find(index, f"text {number}", top_k=1)
            assert (hit.segment.id, hit.cosine) == (number, 1.0)


def test_an_ivf_index_with_ids_and_deletions_is_imported(old: Path, new: Path) -> None:
    def make(vectors: Vectors) -> Any:
        index = ivf(vectors[:0])
        index.add_with_ids(vectors, np.array([5, 2, 9, 7, 100, 4], np.int64))
        index.remove_ids(np.array([9], np.int64))
        return index

    metadata = {name: row(number) for number, name in enumerate([5, 2, 9, 7, 100, 4]) if name != 9}
    write_legacy(old, texts(6), metadata, form=make)
    assert import_legacy(old, new, MODEL).types[TRANSCRIPT].imported == 5
    with SegmentIndex.open(new, MODEL) as index:
        for number in (0, 1, 3, 4, 5):
            (hit,) = find(index, f"text {number}", top_k=1)
            assert (hit.segment.id, hit.cosine) == (number, 1.0)


def test_vectors_of_unit_length_keep_their_bits(old: Path, new: Path) -> None:
    write_legacy(old, texts(5), [row(number) for number in range(5)])
    import_legacy(old, new, MODEL)
    index = faiss.read_index(str(new / "transcript_index.faiss"))
    flat = faiss.downcast_index(index.index)
    assert np.array_equal(flat.reconstruct_n(0, 5), texts(5))


def test_all_three_types_are_imported(old: Path, new: Path) -> None:
    write_legacy(old, texts(3), [row(number) for number in range(3)])
    write_legacy(
        old, texts(2), [row(0, timestamp=4.5, start_time=None), row(1, timestamp=9)], kind="frame"
    )
    write_legacy(old, texts(1), {0: row(0)}, kind="clip", form=hnsw)
    report = import_legacy(old, new, MODEL)
    assert {kind: each.imported for kind, each in report.types.items()} == {
        TRANSCRIPT: 3,
        FRAME: 2,
        CLIP: 1,
    }
    with SegmentIndex.open(new, MODEL) as index:
        frames = stored(index, FRAME)
        assert (frames[1, 0].start_time, frames[1, 0].metadata) == (4.5, {})
        assert (frames[1, 1].start_time, frames[1, 1].metadata) == (2.5, {"timestamp": 9})
        assert stored(index, CLIP)[1, 0].text == "text 0"


def test_an_empty_index_is_imported(old: Path, new: Path) -> None:
    write_legacy(old, texts(0), [])
    write_legacy(old, texts(0), [], kind="clip")
    (old / "clip_metadata.pkl").unlink()
    write_legacy(old, texts(2), [row(0), row(1)], kind="frame")
    assert import_legacy(old, new, MODEL).types[CLIP] == ImportedType("IndexFlatL2", 0, 0)
    with SegmentIndex.open(new, MODEL) as index:
        assert index.stats().vectors == {TRANSCRIPT: 0, FRAME: 2, CLIP: 0}


def test_more_rows_than_fit_in_one_transaction(old: Path, new: Path) -> None:
    count = 5000
    vectors = random_units(count, seed=3)
    rows = [row(number, media_item_id=number % 7) for number in range(count)]
    write_legacy(old, vectors, rows, form=ivf)
    assert import_legacy(old, new, MODEL).types[TRANSCRIPT].imported == count
    index = faiss.read_index(str(new / "transcript_index.faiss"))
    assert np.array_equal(faiss.downcast_index(index.index).reconstruct_n(0, count), vectors)
    assert len(imported_transcripts(new)) == 1000  # as many as one search returns


def test_another_dimension_is_refused(old: Path, new: Path) -> None:
    write_legacy(old, random_units(2, DIMENSION + 1), [row(0), row(1)])
    message = refusal(old, new, MODEL)
    assert (
        f"has vectors of {DIMENSION + 1} dimensions, but sample-model makes {DIMENSION}" in message
    )
    assert "EMBEDDING_MODEL" in message


def test_an_index_that_changes_its_vectors_is_refused(old: Path, new: Path) -> None:
    def quantised(vectors: Vectors) -> Any:
        index = faiss.IndexScalarQuantizer(DIMENSION, faiss.ScalarQuantizer.QT_8bit)
        index.train(random_units(50))
        index.add(vectors)
        return index

    write_legacy(old, texts(2), [row(0), row(1)], form=quantised)
    message = refusal(old, new, MODEL)
    assert "is an IndexScalarQuantizer, which doesn't keep its vectors as they were" in message


def test_another_metric_is_refused(old: Path, new: Path) -> None:
    def manhattan(vectors: Vectors) -> Any:
        index = faiss.IndexFlat(DIMENSION, faiss.METRIC_L1)
        index.add(vectors)
        return index

    write_legacy(old, texts(2), [row(0), row(1)], form=manhattan)
    assert "not L2 or IP" in refusal(old, new, MODEL)


def test_repeated_numbers_are_refused(old: Path, new: Path) -> None:
    form = mapped(flat_l2, [1, 1], faiss.IndexIDMap)
    write_legacy(old, texts(2), {1: row(1)}, form=form)
    assert "several vectors with the same number" in refusal(old, new, MODEL)


@pytest.mark.parametrize("content", [b"", b"no index", b"IxF2" + b"\xff" * 100])
def test_a_damaged_index_is_refused(old: Path, new: Path, content: bytes) -> None:
    write_legacy(old, texts(1), [row(0)])
    (old / "transcript_index.faiss").write_bytes(content)
    assert "transcript_index.faiss can't be read by Faiss" in refusal(old, new, MODEL)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ("text", "it holds a str, expected a list or a dict"),
        ({"a": row(0)}, "it has the key 'a', expected the number of a row"),
        ({True: row(0)}, "it has the key 'True'"),
        ([{"media_item_id": 1, "path": Path("x")}], "it asks for pathlib.PosixPath"),
    ],
)
def test_other_metadata_is_refused(old: Path, new: Path, metadata: Any, reason: str) -> None:
    write_legacy(old, texts(1), metadata)
    message = refusal(old, new, MODEL)
    assert f"{old}/transcript_metadata.pkl can't be read: {reason}" in message


def test_metadata_that_would_run_something_is_refused(old: Path, new: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {old}/was-run",)

    write_legacy(old, texts(1), [row(0, more=Evil())])
    assert f"it asks for {os.system.__module__}.system" in refusal(old, new, MODEL)
    assert not (old / "was-run").exists()


@pytest.mark.parametrize("missing", ["transcript_index.faiss", "transcript_metadata.pkl"])
def test_half_of_the_files_are_refused(old: Path, new: Path, missing: str) -> None:
    write_legacy(old, texts(1), [row(0)])
    (old / missing).unlink()
    message = refusal(old, new, MODEL)
    assert f"is there without {missing}" in message


def test_a_folder_without_old_files_is_refused(old: Path, new: Path) -> None:
    assert "is not a folder" in refusal(old, new, MODEL)
    old.mkdir()
    assert "has no files of the old service" in refusal(old, new, MODEL)
    with SegmentIndex.open(new, MODEL) as index:
        store_segments(index, 1, segment(1))
    assert "has no files of the old service" in refusal(new, old, MODEL)
