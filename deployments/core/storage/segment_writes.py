"""What an Upsert or DeleteMedia does to the store, inside a transaction."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from deployments.core.errors import InvalidInput, OtherModel
from deployments.core.segments import (
    DeleteMedia,
    EmbeddingType,
    Id,
    ModelIdentity,
    Models,
    Upsert,
    UpsertResult,
    Vectors,
)
from deployments.core.storage import own_vector_check
from deployments.core.storage.segment_rows import (
    SegmentRow,
    StoredRow,
    is_own,
    key_of,
    plain_id,
    row_of,
)
from deployments.core.storage.store_writer import StoreWriter
from deployments.core.vectors.exact_search import UNIT_TOLERANCE

_NORM_TOLERANCE = 1e-3


@dataclass(slots=True)
class Change:
    """Rows of one type that a transaction removed and added: little-endian float32 by sequence."""

    removed: set[int] = field(default_factory=set)
    added: dict[int, bytes] = field(default_factory=dict)

    def merge(self, later: "Change") -> None:
        """Take in what a later operation of the same transaction did."""
        for seq in later.removed:
            if self.added.pop(seq, None) is None:
                self.removed.add(seq)
        self.added.update(later.added)

    def arrays(
        self, dimension: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Vectors]:
        """Removed and added sequence numbers, and the added rows' vectors."""
        removed = np.fromiter(self.removed, np.int64, len(self.removed))
        added = np.fromiter(self.added, np.int64, len(self.added))
        vectors = np.frombuffer(b"".join(self.added.values()), "<f4").reshape(-1, dimension)
        return removed, added, vectors.astype(np.float32, copy=False)


Changes = dict[EmbeddingType, Change]


@dataclass(frozen=True, slots=True)
class PreparedUpsert:
    """An Upsert whose every field was checked, its vectors as bytes by position."""

    embedding_type: EmbeddingType
    media_item_id: Id
    rows: tuple[SegmentRow, ...]
    replace: bool
    vectors: dict[int, bytes]
    truncated: frozenset[int]


def prepare(request: Upsert, models: Models) -> PreparedUpsert:
    """Check a request completely. Raises InvalidInput, or OtherModel for its vectors."""
    media_item_id = plain_id(request.media_item_id, "media_item_id")
    rows = tuple(row_of(media_item_id, segment) for segment in request.segments)
    seen: dict[str, int] = {}
    for position, row in enumerate(rows):
        first = seen.setdefault(key_of(row.segment_id), position)
        if first != position:
            raise InvalidInput(
                f"segments {first} and {position} of media item {media_item_id!r} have the same "
                f"id {row.segment_id!r}; each segment of a request needs an id of its own."
            )
    kind = EmbeddingType(request.embedding_type)
    if request.fingerprint not in (None, models[kind].fingerprint):
        raise OtherModel(f"the {kind} vectors that came are not of model {models[kind].name}.")
    vectors = _checked_vectors(request, models[kind].dimension) | _own_vectors(
        request, models[kind]
    )
    for position in request.truncated_positions:
        if position not in vectors:
            raise InvalidInput(f"truncated position {position} is none of the vectors' positions.")
    return PreparedUpsert(
        kind,
        media_item_id,
        rows,
        request.replace,
        vectors,
        frozenset(request.truncated_positions),
    )


def _checked_vectors(request: Upsert, dimension: int) -> dict[int, bytes]:
    positions = request.vector_positions
    given = 0 if request.vectors is None else len(request.vectors)
    if given != len(positions):
        raise InvalidInput(f"{given} vectors came with {len(positions)} positions.")
    if request.vectors is None or not given:
        return {}
    if len(set(positions)) != given:
        raise InvalidInput("two vectors have the same position.")
    for position in positions:
        if not 0 <= position < len(request.segments):
            raise InvalidInput(
                f"vector position {position} is outside of {len(request.segments)} segments."
            )
    checked = unit_vectors(request.vectors, dimension)
    stored = checked.astype("<f4", copy=False)
    return {position: vector.tobytes() for position, vector in zip(positions, stored, strict=True)}


def _own_vectors(request: Upsert, model: ModelIdentity) -> dict[int, bytes]:
    own = {
        position: segment.embedding
        for position, segment in enumerate(request.segments)
        if segment.embedding is not None
    }
    if not own:
        return {}
    dimension = model.dimension
    for position, embedding in own.items():
        if len(embedding) != 4 * dimension:
            raise InvalidInput(
                f"the embedding of segment {position} has {len(embedding) // 4} numbers, but the "
                f"{request.embedding_type} index has vectors of {dimension} (model {model.name})."
            )
    stacked = np.frombuffer(b"".join(own.values()), "<f4").reshape(-1, dimension)
    checked = unit_vectors(stacked.astype(np.float32, copy=False), dimension).astype("<f4")
    return {position: vector.tobytes() for position, vector in zip(own, checked, strict=True)}


def unit_vectors(vectors: Vectors, dimension: int) -> Vectors:
    """The vectors, C-contiguous, their lengths 1 within float32's precision.

    Lengths between 0.999 and 1.001 are set right. Raises InvalidInput for another dtype, shape or
    length, and for what isn't finite.
    """
    if vectors.dtype != np.float32:
        raise InvalidInput(f"vectors are {vectors.dtype}, expected float32.")
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise InvalidInput(f"vectors have shape {vectors.shape}, expected (rows, {dimension}).")
    exact = vectors.astype(np.float64)
    lengths = np.sqrt((exact * exact).sum(axis=1))
    # Written so that NaN fails: it compares false with everything.
    wrong = np.flatnonzero(~(np.abs(lengths - 1.0) <= _NORM_TOLERANCE))
    if len(wrong):
        raise InvalidInput(
            f"vector {wrong[0]} has length {lengths[wrong[0]]:.6g}, expected 1 (L2-normalised)."
        )
    unit = np.ascontiguousarray(vectors)
    off = np.abs(lengths - 1.0) > UNIT_TOLERANCE / 2
    if off.any():
        unit = unit.copy()
        unit[off] = (exact[off] / lengths[off, None]).astype(np.float32)
    return unit


def upsert(writer: StoreWriter, request: PreparedUpsert) -> tuple[UpsertResult, Change]:
    """Store a request's segments. With vectors missing nothing is done and they are named.

    Raises Conflict for vectors that aren't those of their texts while the model is changed.
    """
    kind, media_key = request.embedding_type, key_of(request.media_item_id)
    keys = [key_of(row.segment_id) for row in request.rows]
    existing = writer.existing(kind, media_key, keys)
    kept: list[StoredRow] = []
    todo: list[int] = []
    for position, (key, row) in enumerate(zip(keys, request.rows, strict=True)):
        stored = existing.get(key)
        if stored is not None and row.same_as(stored):
            kept.append(stored)
        else:
            todo.append(position)
    if any(is_own(request.rows[position].text_hash) for position in todo):
        own_vector_check.refuse_during_migration(writer, kind)
    # What is answered as stored has to be there whole, not only to have the same hash.
    writer.proven_blobs(kind, [row.sequence for row in kept])
    vectors, missing = _vectors_of(writer, request, todo, existing)
    if missing:
        return UpsertResult(missing=tuple(missing)), Change()

    replaced = [
        existing[keys[position]].sequence for position in todo if keys[position] in existing
    ]
    dropped: list[int] = []
    if request.replace:
        wanted = set(keys)
        of_media = writer.rows_of_media(kind, media_key)
        dropped = [seq for key, seq in of_media.items() if key not in wanted]
    writer.delete([*replaced, *dropped])
    new = [(request.rows[position], *vectors[position]) for position in todo]
    sequences = writer.insert(kind, new)
    result = UpsertResult(
        stored=len(request.rows),
        changed=len(todo),
        removed=len(dropped),
        truncated=sum(row.truncated for row in kept) + sum(truncated for _, _, truncated in new),
    )
    added = {seq: vector for seq, (_, vector, _) in zip(sequences, new, strict=True)}
    return result, Change({*replaced, *dropped}, added)


def _vectors_of(
    writer: StoreWriter,
    request: PreparedUpsert,
    positions: list[int],
    existing: dict[str, StoredRow],
) -> tuple[dict[int, tuple[bytes, bool]], list[int]]:
    """Vector and truncation for each position, and the positions for which there is none.

    A segment whose text didn't change keeps its vector. Else the request's own counts, then that
    of another stored segment of the media item with the same text, then that of another segment
    of the request with the same text.
    """
    found: dict[int, tuple[bytes, bool]] = {}
    donors: dict[int, tuple[int, bool]] = {}
    open_positions = []
    of_request: dict[bytes, tuple[bytes, bool]] = {}
    for position, vector in request.vectors.items():
        of_request[request.rows[position].text_hash] = (vector, position in request.truncated)
    for position in positions:
        row = request.rows[position]
        stored = existing.get(key_of(row.segment_id))
        if stored is not None and stored.text_hash == row.text_hash:
            donors[position] = (stored.sequence, stored.truncated)
        elif position in request.vectors:
            found[position] = (request.vectors[position], position in request.truncated)
        else:
            open_positions.append(position)
    if open_positions:
        hashes = list({request.rows[position].text_hash for position in open_positions})
        known = writer.rows_of_texts(request.embedding_type, key_of(request.media_item_id), hashes)
        for position in open_positions:
            hashed = request.rows[position].text_hash
            if hashed in known:
                donors[position] = known[hashed]
            elif hashed in of_request:
                found[position] = of_request[hashed]
    if donors:
        # Checked, so that damage isn't copied into a new row with a checksum of its own.
        kind = request.embedding_type
        blobs = writer.proven_blobs(kind, [seq for seq, _ in donors.values()])
        for position, (seq, truncated) in donors.items():
            found[position] = (blobs[seq], truncated)
    missing = [position for position in positions if position not in found]
    return found, missing


def delete_media(writer: StoreWriter, request: DeleteMedia) -> tuple[int, Changes]:
    """Remove a media item's segments; returns how many there were."""
    media_key = key_of(plain_id(request.media_item_id, "media_item_id"))
    kinds = EmbeddingType if request.embedding_type is None else (request.embedding_type,)
    changes: Changes = {}
    for kind in kinds:
        sequences = list(writer.rows_of_media(EmbeddingType(kind), media_key).values())
        if sequences:
            writer.delete(sequences)
            changes[EmbeddingType(kind)] = Change(set(sequences))
    return sum(len(change.removed) for change in changes.values()), changes
