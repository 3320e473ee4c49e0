"""Two models that need no weights, and migrations between them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from storage_samples import DIMENSION, MODEL, random_units, unit, vectors_of

from deployments.core.encoding.batcher import Encoded
from deployments.core.encoding.text_encoder import TextKind
from deployments.core.errors import ServiceError
from deployments.core.index.migration import Migration
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, ModelIdentity, Search, Segment, Upsert, Vectors
from deployments.core.storage.migration_record import Phase
from deployments.core.storage.operations import Maintenance
from deployments.core.vectors.exact_search import cosines_of

NEW_DIMENSION = 24
NEW = ModelIdentity("new-model", "7e" * 32, NEW_DIMENSION)
NEWS = dict.fromkeys(EmbeddingType, NEW)


def new_vectors_of(texts: Sequence[str]) -> Vectors:
    """Unit vectors of the new model, (texts, NEW_DIMENSION): near where the old ones are near."""
    projection = random_units(DIMENSION, NEW_DIMENSION, seed=7)
    return unit(vectors_of(texts).astype(np.float64) @ projection).reshape(-1, NEW_DIMENSION)


def encoded(model: ModelIdentity, texts: Sequence[str]) -> Vectors:
    """The vectors of a model of these."""
    return {MODEL: vectors_of, NEW: new_vectors_of}[model](texts)


def is_cut(model: ModelIdentity, text: str) -> bool:
    """The new model takes 20 characters."""
    return model == NEW and len(text) > 20


class BothModels:
    """Encodes with both models, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...], TextKind]] = []
        self.failures: list[ServiceError] = []

    def __call__(self, model: ModelIdentity, texts: Sequence[str], kind: TextKind) -> Encoded:
        self.asked.append((model.name, tuple(texts), kind))
        if self.failures:
            raise self.failures.pop()
        return Encoded(
            encoded(model, texts), tuple(is_cut(model, text) for text in texts), (1,) * len(texts)
        )

    def stored_texts(self, model: ModelIdentity) -> list[str]:
        """The stored texts that were encoded with a model, in order."""
        return [
            text
            for name, texts, kind in self.asked
            for text in texts
            if (name, kind) == (model.name, "document")
        ]


def migration_of(index: SegmentIndex, models: BothModels) -> Migration:
    def apply(change: Maintenance) -> int:
        (outcome,) = index.apply([change])
        if isinstance(outcome, ServiceError):
            raise outcome
        assert isinstance(outcome, int)
        return outcome

    return Migration(index, apply, models)


def work_off(migration: Migration) -> None:
    """Do all that there is to do."""
    while migration.step():
        pass


def write(index: SegmentIndex, upsert: Upsert) -> None:
    """Store segments with vectors of the model that the index has now."""
    model = index.models[upsert.embedding_type]
    texts = [each.text for each in upsert.segments]
    full = replace(
        upsert,
        vectors=encoded(model, texts),
        vector_positions=tuple(range(len(texts))),
        truncated_positions=tuple(i for i, text in enumerate(texts) if is_cut(model, text)),
        fingerprint=model.fingerprint,
    )
    (outcome,) = index.apply([full])
    assert not isinstance(outcome, ServiceError), outcome


def found(index: SegmentIndex, kind: EmbeddingType) -> dict[tuple[object, object], str]:
    """The texts of all segments of a type, each of which is at its vector of the present model."""
    texts = {}
    model = index.models[kind]
    (everything,) = index.search([Search(kind, 10_000)], encoded(model, ["anything"]))
    for hit in everything:
        text = hit.segment.text
        texts[hit.media_item_id, hit.segment.id] = text
        here = cosines_of(encoded(model, [text]), encoded(model, ["anything"])[0])
        assert np.isclose(hit.cosine, here[0], atol=1e-6), text
    return texts


def contents(index: SegmentIndex) -> dict[EmbeddingType, dict[tuple[object, object], str]]:
    """What `found` says of each type."""
    return {kind: found(index, kind) for kind in EmbeddingType}


def phase(migration: Migration) -> Phase | None:
    """How far a migration is, None if there is none."""
    status = migration.status()
    return None if status is None else status.record.phase


def own(name: int, dimension: int = DIMENSION) -> Segment:
    """A segment that comes with a vector."""
    return Segment(name, "", embedding=random_units(1, dimension, name)[0].tobytes())


def cut_texts(index: SegmentIndex) -> set[str]:
    """The texts that are noted as longer than the model's limit."""
    return index.read(
        lambda reader, _: {
            text
            for (text,) in reader.connection.execute("SELECT text FROM segments WHERE truncated")
        }
    )
