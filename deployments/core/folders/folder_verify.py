"""Everything that can be wrong with an index folder, found without changing it."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deployments.core.durable_files import Disk
from deployments.core.errors import StoreDamaged
from deployments.core.folders.folder_view import FolderView, read_folder
from deployments.core.segments import EmbeddingType, Models
from deployments.core.storage import store_check
from deployments.core.storage.commit_mark import CommitMark
from deployments.core.telling import Tell, tell_nobody
from deployments.core.vectors import checkpoint
from deployments.core.vectors.checkpoint import Checkpoint, Flaw, Stamp, Unusable

_BLOCK_ROWS = 4096
_ANY = 2**62


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found. `problems` are sentences; an index without any is whole."""

    models: Models | None = None
    commit_id: int = 0
    segments: dict[EmbeddingType, int] = field(default_factory=dict)
    store_problems: list[str] = field(default_factory=list)
    checkpoint_problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is no flaw but costs time at the next start."""

    @property
    def problems(self) -> list[str]:
        """All of them, those of the store first."""
        return self.store_problems + self.checkpoint_problems


def verify_folder(folder: Path, tell: Tell = tell_nobody) -> Verdict:
    """Read the store and the checkpoints of a folder completely, beside a running service or not.

    A damaged store or checkpoint is in the verdict; what keeps from looking at all is raised, as
    by read_folder: no store, files of the old service, a newer version, no permission. Takes
    seconds for 100,000 segments, and memory for the vectors of one type.
    """
    try:
        return _verify(folder, tell)
    except StoreDamaged as error:
        # So damaged that it can't be read to its end.
        return Verdict(store_problems=[error.detail])


def _verify(folder: Path, tell: Tell) -> Verdict:
    store_id = read_folder(folder, lambda view: view.store_id)
    # In this order: beside a running service the mark and the checkpoints are then never newer.
    recorded = CommitMark(folder, store_id).read()
    verdict = read_folder(folder, lambda view: _verify_store(view, recorded, tell))
    for kind in EmbeddingType:
        tell(f"Checking the {kind} vectors", 0, None)
        _verify_checkpoint(folder, kind, verdict)
    return verdict


def _verify_store(view: FolderView, recorded: int, tell: Tell) -> Verdict:
    problems = store_check.problems(view.reader, view.models, tell)
    if recorded > view.commit_id:
        problems.append(
            f"The store is at commit {view.commit_id}, but commit {recorded} was made durable in "
            "it: it was replaced by an older copy, or its -wal file was removed."
        )
    counts: dict[EmbeddingType, int] = {}
    with suppress(StoreDamaged):  # then the problems say so
        counts = view.counts()
    return Verdict(view.models, view.commit_id, counts, problems)


def _verify_checkpoint(folder: Path, kind: EmbeddingType, verdict: Verdict) -> None:
    loaded = load_checkpoint(folder, kind)
    if not isinstance(loaded, Unusable):
        # Beside a damaged store a comparison says nothing about the checkpoint.
        if not verdict.store_problems and (
            problem := read_folder(folder, lambda view: differs(view, kind, loaded))
        ):
            verdict.checkpoint_problems.append(problem)
    elif loaded.flaw is not Flaw.MISSING:
        verdict.checkpoint_problems.append(f"{loaded.reason}; it can be rebuilt from the store.")
    elif verdict.segments.get(kind):
        verdict.notes.append(f"{loaded.reason}; the next start rebuilds it from the store.")


def load_checkpoint(folder: Path, kind: EmbeddingType) -> Checkpoint | Unusable:
    """The folder's checkpoint of a type, checked by itself: `differs` compares its rows."""
    expected = read_folder(
        folder,
        lambda view: Stamp(
            kind.value,
            view.models[kind].fingerprint,
            view.models[kind].dimension,
            0,
            _ANY,
            view.store_id,
            _ANY,
        ),
    )
    return checkpoint.load(checkpoint.path_of(folder, kind), expected, Disk())


def differs(view: FolderView, kind: EmbeddingType, loaded: Checkpoint) -> str:
    """How a checkpoint contradicts a store that is as old or younger; empty if it doesn't."""
    name = checkpoint.path_of(view.folder, kind).name
    stamp, reader = loaded.stamp, view.reader
    if stamp.commit_id > view.commit_id or stamp.last_seq > reader.last_sequence():
        return (
            f"{name} holds commit {stamp.commit_id}, the store only commit {view.commit_id}: the "
            "store was replaced by an older copy, or its -wal file was removed."
        )
    live = reader.sequences(kind)
    due = live[live <= stamp.last_seq]
    lacking = np.setdiff1d(due, loaded.sequences, assume_unique=True)
    if len(lacking):
        return f"{name} lacks {len(lacking)} rows that it should have, first row {lacking[0]}."
    surplus = np.setdiff1d(loaded.sequences, live, assume_unique=True)
    if len(surplus) and stamp.commit_id == view.commit_id:
        return f"{name} has {len(surplus)} rows that the store lacks, first row {surplus[0]}."
    positions = np.flatnonzero(np.isin(loaded.sequences, live, assume_unique=True))
    for start in range(0, len(positions), _BLOCK_ROWS):
        block = positions[start : start + _BLOCK_ROWS]
        stored = reader.vectors(loaded.sequences[block].tolist(), view.models[kind].dimension)
        wrong = np.flatnonzero((stored != loaded.vectors[block]).any(axis=1))
        if len(wrong):
            row = loaded.sequences[block[wrong[0]]]
            return f"{name} has another vector for row {row} than the store."
    return ""
