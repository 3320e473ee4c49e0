"""Reads the old service's files type by type, checks every row, and stores them."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deployments.core.errors import InvalidInput
from deployments.core.folders.folder_install import pickle_of
from deployments.core.folders.legacy_files import LegacyVectors, read_metadata, read_vectors
from deployments.core.folders.legacy_rows import BadRow, LegacyRow, LegacyRows, read_rows
from deployments.core.index.bulk_records import Record, store_records
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, Vectors
from deployments.core.telling import Tell, tell_nobody, told
from deployments.core.vectors import checkpoint
from deployments.core.vectors.exact_search import UNIT_TOLERANCE, cosines_of

MIN_COSINE = 0.98
"""Of an imported vector to the same text encoded anew. Another model's are near 0; another
engine's, or those of half precision, above 0.99."""

_BLOCK_ROWS = 4096
_SHOWN_ROWS = 20

Encode = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True, slots=True)
class SampleCheck:
    """Encode up to `count` texts of each type, to notice vectors of another model."""

    encode: Encode
    count: int


@dataclass(frozen=True, slots=True)
class ImportedType:
    """What became of one type's rows."""

    index: str
    rows: int
    imported: int
    duplicates: int = 0
    without_metadata: int = 0
    without_text: int = 0
    skipped: list[BadRow] = field(default_factory=list)
    checked: int = 0
    lowest_cosine: float | None = None


class LegacyTypes:
    """Reads all types before it complains, so that every bad row is in the message."""

    def __init__(
        self,
        source: Path,
        index: SegmentIndex,
        skip_bad_rows: bool,
        check: SampleCheck | None,
        tell: Tell = tell_nobody,
    ) -> None:
        self._source = source
        self._index = index
        self._skip_bad_rows = skip_bad_rows
        self._check = check
        self._tell = tell

    def store(self, kinds: list[EmbeddingType]) -> dict[EmbeddingType, ImportedType]:
        """Store the rows of these types. Raises InvalidInput if one can't be, listing the rows."""
        types, refused = {}, []
        for kind in kinds:
            self._tell(f"Reading {kind} rows", 0, None)
            vectors, rows = self._read(kind)
            if rows.bad and not self._skip_bad_rows:
                refused.append(_listed(kind, rows.bad))
                continue
            rows.keep_last()
            checked, lowest = self._compare(kind, vectors, rows.taken)
            if not refused:
                records = _records(kind, vectors, rows.taken)
                what = f"Storing {kind} segments"
                store_records(self._index, told(self._tell, what, records, len(rows.taken)))
            types[kind] = ImportedType(
                vectors.form,
                len(vectors.rows),
                len(rows.taken),
                rows.duplicates,
                rows.without_metadata,
                sum(not each.segment.text.strip() for each in rows.taken),
                rows.bad,
                checked,
                lowest,
            )
        if refused:
            raise InvalidInput(
                "\n".join(["Nothing was imported, since these rows can't be:", *refused])
                + "\nWith --skip-bad-rows the others are imported."
            )
        return types

    def _read(self, kind: EmbeddingType) -> tuple[LegacyVectors, LegacyRows]:
        path, metadata_path = checkpoint.path_of(self._source, kind), pickle_of(self._source, kind)
        if not path.exists():
            raise InvalidInput(
                f"{metadata_path} is there without {path.name}, which has the vectors. To go "
                f"without the {kind} segments, move {metadata_path.name} away."
            )
        vectors = read_vectors(path)
        expected = self._index.models[kind]
        if vectors.dimension != expected.dimension:
            raise InvalidInput(
                f"{path} has vectors of {vectors.dimension} dimensions, but {expected.name} makes "
                f"{expected.dimension}. Set EMBEDDING_MODEL to the model that made them."
            )
        metadata: dict[int, Any] = {}
        is_list = False
        if metadata_path.exists():
            metadata, is_list = read_metadata(metadata_path)
        elif len(vectors.rows):
            raise InvalidInput(
                f"{path} is there without {metadata_path.name}, which has the texts. To go "
                f"without the {kind} segments, move {path.name} away."
            )
        rows = read_rows(kind, vectors.rows.tolist(), metadata, is_list=is_list)
        rows.refuse(_unusable(vectors, rows.taken))
        return vectors, rows

    def _compare(
        self, kind: EmbeddingType, vectors: LegacyVectors, taken: list[LegacyRow]
    ) -> tuple[int, float | None]:
        """How many texts were encoded anew, and the lowest cosine. Raises InvalidInput below
        MIN_COSINE."""
        if self._check is None or self._check.count <= 0:
            return 0, None
        texts = [row for row in taken if row.segment.text.strip()]
        sample = random.Random(0).sample(texts, min(self._check.count, len(texts)))
        if not sample:
            return 0, None
        encoded = self._check.encode([row.segment.text for row in sample])
        imported = _unit(vectors.take(np.array([row.position for row in sample], np.int64)))
        cosines = [
            float(cosines_of(one[None], other)[0])
            for one, other in zip(imported, encoded, strict=True)
        ]
        far = sum(cosine < MIN_COSINE for cosine in cosines)
        if far:
            worst = min(range(len(sample)), key=cosines.__getitem__)
            raise InvalidInput(
                f"{far} of {len(sample)} {kind} texts that were encoded with "
                f"{self._index.models[kind].name} are far from their imported vectors: row "
                f"{sample[worst].row} has a cosine of {cosines[worst]:.3f}, expected at least "
                f"{MIN_COSINE}. Another model made them, or the index and the metadata are of "
                "different moments. Set EMBEDDING_MODEL to the right one, or skip this "
                "comparison with --check 0."
            )
        return len(sample), min(cosines)


def _listed(kind: EmbeddingType, bad: list[BadRow]) -> str:
    shown = [f"  {kind} row {each.row}: {each.reason}" for each in bad[:_SHOWN_ROWS]]
    if len(bad) > len(shown):
        shown.append(f"  … and {len(bad) - len(shown)} more of {kind}")
    return "\n".join(shown)


def _blocks(
    vectors: LegacyVectors, taken: list[LegacyRow]
) -> Iterator[tuple[list[LegacyRow], Vectors]]:
    for start in range(0, len(taken), _BLOCK_ROWS):
        block = taken[start : start + _BLOCK_ROWS]
        yield block, vectors.take(np.array([row.position for row in block], np.int64))


def _unusable(vectors: LegacyVectors, taken: list[LegacyRow]) -> dict[int, str]:
    reasons = {}
    for rows, block in _blocks(vectors, taken):
        lengths = np.linalg.norm(block.astype(np.float64), axis=1)
        for position in np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0))):
            length = lengths[position]
            reasons[rows[position].row] = (
                "its vector is zero" if length == 0 else "its vector isn't finite"
            )
    return reasons


def _unit(vectors: Vectors) -> Vectors:
    """L2-normalised; a vector that is so already keeps its bits."""
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    off = np.abs(lengths - 1) > UNIT_TOLERANCE / 2
    return np.where(off, exact / lengths, exact).astype(np.float32)


def _records(
    kind: EmbeddingType, vectors: LegacyVectors, taken: list[LegacyRow]
) -> Iterator[Record]:
    for rows, block in _blocks(vectors, taken):
        for row, vector in zip(rows, _unit(block), strict=True):
            yield Record(kind, row.media_item_id, row.segment, vector)
