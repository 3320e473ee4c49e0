import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from kill_points import kill_everywhere
from legacy_samples import (
    hashes,
    hnsw,
    imported_transcripts,
    refusal,
    row,
    texts,
    write_legacy,
)
from storage_samples import (
    DIMENSION,
    MODEL,
    TRANSCRIPT,
    random_units,
    segment,
    store_segments,
    vector_of,
    vectors_of,
)

from deployments.core.durable_files import Disk
from deployments.core.errors import (
    FolderLocked,
    LegacyFolder,
    StoreDamaged,
    StoreFull,
)
from deployments.core.folders.folder_verify import verify_folder
from deployments.core.folders.legacy_import import ImportedLegacy, import_legacy
from deployments.core.folders.legacy_types import SampleCheck
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, ModelIdentity, Vectors


def test_vectors_of_the_model_pass_the_comparison(old: Path, new: Path) -> None:
    write_legacy(old, texts(50) * 2, [row(number) for number in range(50)])
    encoded: list[str] = []

    def encode(batch: Sequence[str]) -> Vectors:
        encoded.extend(batch)
        return vectors_of(batch)

    report = import_legacy(old, new, MODEL, check=SampleCheck(encode, 20)).types[TRANSCRIPT]
    assert (report.checked, report.lowest_cosine) == (20, pytest.approx(1, abs=1e-6))
    assert len(set(encoded)) == 20


def test_vectors_of_another_model_are_noticed(old: Path, new: Path) -> None:
    write_legacy(old, random_units(50, seed=9), [row(number) for number in range(50)])
    message = refusal(old, new, MODEL, check=SampleCheck(vectors_of, 20))
    assert "20 of 20 transcript texts that were encoded with sample-model are far" in message
    assert "--check 0" in message
    assert hashes(new) == {}


def test_shifted_metadata_is_noticed(old: Path, new: Path) -> None:
    write_legacy(old, texts(50), {number: row((number + 1) % 50) for number in range(50)})
    assert "are far from their imported vectors" in refusal(
        old, new, MODEL, check=SampleCheck(vectors_of, 5)
    )


@pytest.mark.parametrize(("cosine", "passes"), [(0.985, True), (0.975, False)])
def test_the_comparison_has_a_threshold(old: Path, new: Path, cosine: float, passes: bool) -> None:
    vector = vector_of("text 0").astype(np.float64)
    aside = random_units(1)[0].astype(np.float64)
    aside -= vector * (aside @ vector)
    aside /= np.linalg.norm(aside)
    near = cosine * vector + np.sqrt(1 - cosine**2) * aside
    write_legacy(old, near[None].astype(np.float32), [row(0)])
    if passes:
        report = import_legacy(old, new, MODEL, check=SampleCheck(vectors_of, 1))
        assert report.types[TRANSCRIPT].lowest_cosine == pytest.approx(cosine, abs=1e-6)
    else:
        message = refusal(old, new, MODEL, check=SampleCheck(vectors_of, 1))
        assert f"row 0 has a cosine of {cosine}" in message


def test_no_comparison_is_made_without_a_count(old: Path, new: Path) -> None:
    write_legacy(old, random_units(3), [row(number) for number in range(3)])
    report = import_legacy(old, new, MODEL, check=SampleCheck(vectors_of, 0))
    assert (report.types[TRANSCRIPT].checked, report.types[TRANSCRIPT].lowest_cosine) == (0, None)


def test_in_place_the_old_files_end_up_in_a_subfolder(old: Path) -> None:
    write_legacy(old, texts(3), [row(number) for number in range(3)])
    write_legacy(old, texts(1), [row(0)], kind="frame", form=hnsw)
    (old / "notes.txt").write_text("mine")
    before = hashes(old)
    with pytest.raises(LegacyFolder, match="import-legacy"):
        SegmentIndex.open(old, MODEL)
    report = import_legacy(old, old, MODEL)
    assert report.legacy_folder == old / "legacy"
    assert hashes(old / "legacy") == {name: before[name] for name in before if name != "notes.txt"}
    assert sorted(path.name for path in old.iterdir()) == [
        ".lock",
        "clip_index.faiss",
        "frame_index.faiss",
        "legacy",
        "notes.txt",
        "store.sqlite3",
        "transcript_index.faiss",
    ]
    assert verify_folder(old).problems == []
    assert set(imported_transcripts(old)) == {(1, 0), (1, 1), (1, 2)}
    # The new index writes to its own files.
    with SegmentIndex.open(old, MODEL) as index:
        store_segments(index, 9, segment(1))
    assert hashes(old / "legacy")["transcript_index.faiss"] == before["transcript_index.faiss"]


def test_an_import_in_place_is_not_made_twice(old: Path) -> None:
    write_legacy(old, texts(1), [row(0)])
    import_legacy(old, old, MODEL)
    with SegmentIndex.open(old, MODEL) as index:
        store_segments(index, 9, segment(1))
    before = hashes(old)
    assert import_legacy(old, old, MODEL) == ImportedLegacy({}, old / "legacy")
    assert hashes(old) == before
    # Other old files beside a store are nothing that an import has left.
    write_legacy(old, texts(2), [row(0), row(1)], kind="clip")
    assert "has a store of this service already" in refusal(old, old, MODEL)


def test_a_store_that_was_not_imported_is_named(new: Path) -> None:
    with SegmentIndex.open(new, MODEL) as index:
        store_segments(index, 9, segment(1))
    assert "has a store of this service already" in refusal(new, new, MODEL)


def test_other_files_in_the_subfolder_stay(old: Path) -> None:
    write_legacy(old, texts(1), [row(0)])
    (old / "legacy").mkdir()
    (old / "legacy" / "transcript_index.faiss").write_bytes(b"from an earlier time")
    before = hashes(old)
    report = import_legacy(old, old, MODEL)
    assert report.legacy_folder.name.startswith("legacy-2")
    assert hashes(report.legacy_folder) == before
    assert (old / "legacy" / "transcript_index.faiss").read_bytes() == b"from an earlier time"


def test_a_folder_with_a_store_is_refused(old: Path, new: Path) -> None:
    with SegmentIndex.open(new, MODEL) as index:
        store_segments(index, 1, segment(1, "mine"))
    write_legacy(old, texts(1), [row(0)])
    assert "has a store already" in refusal(old, new, MODEL)
    assert imported_transcripts(new)[1, 1].text == "mine"
    (new / "store.sqlite3").unlink()
    with pytest.raises(StoreDamaged):
        import_legacy(old, new, MODEL)


def test_a_folder_in_use_is_refused(old: Path, new: Path) -> None:
    write_legacy(old, texts(1), [row(0)])
    with SegmentIndex.open(new, MODEL), pytest.raises(FolderLocked):
        import_legacy(old, new, MODEL)


def test_other_old_files_in_the_target_are_refused(old: Path, new: Path) -> None:
    write_legacy(old, texts(1), [row(0)])
    write_legacy(new, texts(1), [row(0)])
    with pytest.raises(LegacyFolder):
        import_legacy(old, new, MODEL)


class FullDisk(Disk):
    """Refuses the n-th write and all after it."""

    def __init__(self, writes: int) -> None:
        self.left = writes

    def write(self, descriptor: int, data: memoryview) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")
        return super().write(descriptor, data)


def test_a_full_disk_leaves_the_old_files(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_legacy(old, texts(3), [row(number) for number in range(3)])
    before = hashes(old)

    def refuse(path: Path, other: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(StoreFull):
        import_legacy(old, old, MODEL, disk=FullDisk(1))
    assert hashes(old) == before
    import_legacy(old, old, MODEL)
    assert hashes(old / "legacy") == before
    assert len(imported_transcripts(old)) == 3


def test_a_model_that_is_another_is_written_down(old: Path, new: Path) -> None:
    other = ModelIdentity("other", "ab" * 32, DIMENSION)
    write_legacy(old, texts(1), [row(0)])
    import_legacy(old, new, other)
    assert verify_folder(new).models == dict.fromkeys(EmbeddingType, other)


def test_an_import_in_place_that_is_killed_anywhere_can_be_repeated(
    memory_folder: Path,
) -> None:
    template = memory_folder / "template"
    template.mkdir()
    write_legacy(template / "index", texts(3), [row(number) for number in range(3)])
    write_legacy(template / "index", texts(1), {0: row(0)}, kind="clip", form=hnsw)
    shutil.copytree(template / "index", template / "wanted")
    found = kill_everywhere(
        template, "import-legacy", "{}/index", "--into", "{}/index", "--check", "0"
    )
    new = sorted(
        [f"transcript 1 {number} text {number}" for number in range(3)] + ["clip 1 0 text 0"]
    )
    survived = [each["survived"] for each in found]
    assert all(each in ("LegacyFolder", new) for each in survived), survived
    assert [each for each, _ in itertools.groupby(survived, key=json.dumps)] == [
        json.dumps("LegacyFolder"),
        json.dumps(new),
    ]
    assert len(found) > 15
    for each in found:
        assert each["repeated_status"] == 0, each
        assert each["repeated"] == new
        names = [name.split()[0] for name in each["repeated_files"] if name.startswith("index/")]
        assert not any(name.endswith("metadata.pkl") and "legacy/" not in name for name in names)
        assert {name for name in names if name.startswith("index/legacy/")} == {
            f"index/legacy/{name}" for name in hashes(template / "wanted")
        }
