"""The application `index` with an Index that dies where the test wants it to."""

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.serve import Application

from deployments import app, index_folder
from deployments.core.durable_files import Disk
from deployments.core.index import segment_index
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import Upsert, UpsertResult
from deployments.core.settings import Settings
from deployments.core.storage import operations
from deployments.index import Index
from tests.crash.faults import CONTROL_DIR, SABOTAGE, Faults, Point


class FaultyDisk(Disk):
    """A disk that loses its process."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def write(self, descriptor, data):
        half = data[: len(data) // 2]
        self._faults.reach(
            Point.CHECKPOINT_WRITE, lambda: super(FaultyDisk, self).write(descriptor, half)
        )
        return super().write(descriptor, data)

    def read_into(self, descriptor, buffer):
        self._faults.reach(Point.RECOVERY_READ)
        return super().read_into(descriptor, buffer)

    def replace(self, source, target):
        self._faults.reach(Point.CHECKPOINT_RENAME)
        super().replace(source, target)
        self._faults.reach(Point.CHECKPOINT_RENAMED)


class FaultySegmentIndex(SegmentIndex):
    """A SegmentIndex that passes the points, and writes a checkpoint whenever one could be."""

    faults: Faults

    @classmethod
    def open(cls, folder, models, lock=None, disk=None, policy=None, **options):
        return super().open(folder, models, lock, disk or FaultyDisk(cls.faults), policy, **options)

    def checkpoint_due(self):
        return bool(self._checkpoints.schedule.pending())

    def apply(self, operations):
        before = self.stats().last_sequence
        outcomes = super().apply(operations)
        if self.stats().last_sequence != before:
            self.faults.reach(Point.PUBLISHED)
        return outcomes

    def _take_in(self, changes, commit_id, last_sequence):
        self.faults.reach(Point.COMMITTED)
        super()._take_in(changes, commit_id, last_sequence)

    def _recover(self):
        super()._recover()
        self.faults.reach(Point.RECOVERED)


class SabotagedSegmentIndex(FaultySegmentIndex):
    """Breaks a promise now and then, so that one can see the test notice."""

    def apply(self, operations: Sequence[Any]):
        kept = list(operations)
        for position, operation in enumerate(kept):
            if random.random() < 0.02 and isinstance(operation, Upsert) and operation.segments:
                if os.environ[SABOTAGE] == "lose":
                    kept[position] = None
                elif os.environ[SABOTAGE] == "tear" and len(operation.segments) > 1:
                    kept[position] = _without_last(operation)
        outcomes = iter(super().apply([each for each in kept if each is not None]))
        return [
            next(outcomes) if each is not None else UpsertResult(stored=len(operation.segments))
            for operation, each in zip(operations, kept, strict=True)
        ]

    def search(self, searches, queries):
        found = super().search(searches, queries)
        if os.environ[SABOTAGE] == "blur":
            found = [[replace(hit, cosine=hit.cosine * 0.9997) for hit in hits] for hits in found]
        return found


def _without_last(operation: Upsert) -> Upsert:
    last = len(operation.segments) - 1
    kept = [i for i, position in enumerate(operation.vector_positions) if position != last]
    return replace(
        operation,
        segments=operation.segments[:-1],
        vectors=None if operation.vectors is None else operation.vectors[kept],
        vector_positions=tuple(operation.vector_positions[i] for i in kept),
        truncated_positions=tuple(p for p in operation.truncated_positions if p != last),
    )


class FaultyIndex(Index):
    """The Index around such a SegmentIndex."""

    def __init__(self, settings: Settings) -> None:
        FaultySegmentIndex.faults = Faults(Path(os.environ[CONTROL_DIR]))
        sabotaged = bool(os.environ.get(SABOTAGE))
        index_folder.SegmentIndex = SabotagedSegmentIndex if sabotaged else FaultySegmentIndex
        segment_index.carry_out = _dying_in_transaction(FaultySegmentIndex.faults)
        super().__init__(settings)


def _dying_in_transaction(faults: Faults):
    def carry_out(writer, *arguments):
        outcome = operations.carry_out(writer, *arguments)
        if writer.changed:
            faults.reach(Point.IN_TRANSACTION)
        return outcome

    return carry_out


def index(args: dict[str, Any]) -> Application:
    """As `deployments.app:index`."""
    deployment = app.index(args)._bound_deployment
    return deployment.options(func_or_class=FaultyIndex).bind(Settings.load(args))
