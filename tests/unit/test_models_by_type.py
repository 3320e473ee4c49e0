"""An index whose types have models, and so dimensions, of their own."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from folder_samples import change_a_text
from storage_samples import CLIP, FRAME, TRANSCRIPT, random_units, segment

from deployments.core.errors import InvalidInput, StoreMismatch
from deployments.core.folders.backup import back_up
from deployments.core.folders.export import export_folder, import_file
from deployments.core.folders.folder_verify import verify_folder
from deployments.core.folders.salvaged_index import SalvagedIndex
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import (
    EmbeddingType,
    ModelIdentity,
    MomentSearch,
    Search,
    SearchMode,
    Upsert,
    UpsertResult,
)

OWN = {
    TRANSCRIPT: ModelIdentity("of texts", "1a" * 32, 16),
    FRAME: ModelIdentity("of images", "2b" * 32, 8),
    CLIP: ModelIdentity("of films", "3c" * 32, 24),
}
VECTORS = {
    kind: random_units(4, model.dimension, seed) for seed, (kind, model) in enumerate(OWN.items())
}


def fill(index: SegmentIndex) -> None:
    for kind, vectors in VECTORS.items():
        segments = tuple(segment(number) for number in range(len(vectors)))
        positions = tuple(range(len(vectors)))
        (stored,) = index.apply(
            [Upsert(kind, kind.value, segments, vectors=vectors, vector_positions=positions)]
        )
        assert isinstance(stored, UpsertResult)
        assert stored.stored == 4


def assert_finds_each(index: SegmentIndex | SalvagedIndex) -> None:
    """Each vector finds its own segment, all of them asked for in one call."""
    asked = [(kind, row) for row in range(4) for kind in EmbeddingType]
    found = index.search(
        [Search(kind, 1) for kind, _ in asked], [VECTORS[kind][row] for kind, row in asked]
    )
    hits = [(hit.media_item_id, hit.segment.id) for (hit,) in found]
    assert hits == [(kind.value, row) for kind, row in asked]
    assert all(hit.cosine == pytest.approx(1) for (hit,) in found)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[SegmentIndex]:
    with SegmentIndex.open(tmp_path / "own", OWN) as index:
        fill(index)
        yield index


def test_each_type_has_vectors_of_its_own_model(own: SegmentIndex) -> None:
    assert_finds_each(own)
    assert own.stats().models == OWN
    assert own.verify() == []


def test_a_restart_takes_the_checkpoints_of_all_models(own: SegmentIndex) -> None:
    own.close()
    with SegmentIndex.open(own.folder, OWN) as again:
        assert again.stats().rebuilt == {}
        assert_finds_each(again)


@pytest.mark.parametrize("kind", EmbeddingType)
def test_a_restart_with_another_model_for_one_type_is_refused(
    own: SegmentIndex, kind: EmbeddingType
) -> None:
    own.close()
    other = ModelIdentity("another", "4d" * 32, OWN[kind].dimension)
    for opens in (SegmentIndex.open, SalvagedIndex.open):
        with pytest.raises(StoreMismatch, match=f"{kind} vectors of model {OWN[kind].name}"):
            opens(own.folder, {**OWN, kind: other})


def test_vectors_and_queries_of_another_type_s_dimension_are_refused(own: SegmentIndex) -> None:
    of_frames = VECTORS[FRAME][:1]
    upsert = Upsert(TRANSCRIPT, 1, (segment(1),), vectors=of_frames, vector_positions=(0,))
    (outcome,) = own.apply([upsert])
    assert isinstance(outcome, InvalidInput)
    assert "expected (rows, 16)" in outcome.detail
    with pytest.raises(InvalidInput, match=r"expected \(rows, 16\)"):
        own.search([Search(TRANSCRIPT, 1)], of_frames)
    with pytest.raises(InvalidInput, match="different dimensions"):
        own.search([Search(TRANSCRIPT, 1)] * 2, [VECTORS[TRANSCRIPT][0], of_frames[0]])
    search = MomentSearch(((TRANSCRIPT, 1.0), (FRAME, 1.0)), 1, mode=SearchMode.SEMANTIC)
    with pytest.raises(InvalidInput, match=r"expected \(rows, 8\)"):
        own.reads.moments([search], VECTORS[TRANSCRIPT][:2])


def test_a_backup_and_its_verification_know_each_model(own: SegmentIndex, tmp_path: Path) -> None:
    own.checkpoint(force=True)
    copied = back_up(own.folder, tmp_path / "copy")
    assert (copied.models, copied.left_out) == (OWN, [])
    verdict = verify_folder(tmp_path / "copy")
    assert (verdict.models, verdict.problems) == (OWN, [])
    with SegmentIndex.open(tmp_path / "copy", OWN) as again:
        assert_finds_each(again)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_an_export_keeps_each_model(own: SegmentIndex, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"x.{suffix}"
    assert export_folder(own.folder, file).models == OWN
    assert import_file(file, tmp_path / "new").models == OWN
    with SegmentIndex.open(tmp_path / "new", OWN) as again:
        assert_finds_each(again)
        assert again.verify() == []
    with SegmentIndex.open(tmp_path / "other", OWN[CLIP]) as other:
        other.close()
        with pytest.raises(StoreMismatch, match="transcript vectors of model of texts"):
            import_file(file, other.folder)


def test_an_export_of_the_version_with_one_model_can_be_imported(tmp_path: Path) -> None:
    model = OWN[FRAME]
    with SegmentIndex.open(tmp_path / "old", model) as index:
        vectors = VECTORS[FRAME]
        segments = tuple(segment(number) for number in range(4))
        index.apply([Upsert(CLIP, 1, segments, vectors=vectors, vector_positions=(0, 1, 2, 3))])
    file = tmp_path / "x.jsonl"
    export_folder(tmp_path / "old", file)
    header, *lines = file.read_text().splitlines()
    old = {**json.loads(header), "version": 1, "model": asdict(model)}
    del old["models"]
    file.write_text("\n".join([json.dumps(old), *lines, ""]))
    assert import_file(file, tmp_path / "new").models == dict.fromkeys(EmbeddingType, model)
    with SegmentIndex.open(tmp_path / "new", model) as again:
        (hits,) = again.search([Search(CLIP, 1)], vectors[2:3])
        assert hits[0].segment.id == 2


def test_what_is_intact_of_a_damaged_store_is_found_in_each_model(own: SegmentIndex) -> None:
    own.close()
    change_a_text(own.folder)
    with SalvagedIndex.open(own.folder, OWN) as salvaged:
        assert salvaged.stats().models == OWN
        assert salvaged.stats().vectors == {TRANSCRIPT: 3, FRAME: 4, CLIP: 4}
        (hits,) = salvaged.search([Search(CLIP, 1)], VECTORS[CLIP][3:])
        assert hits[0].segment.id == 3
        assert np.isclose(hits[0].cosine, 1)
