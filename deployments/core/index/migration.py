"""Changing the model of an index while it is searched and written to.

Each segment gets a second vector, of the new model, from its stored text. When all have one, the
two change places in one transaction, and those of the old model are kept up to date in the same
way, so that the change can be taken back. What is to do is always what the store lacks: a kill at
any moment loses at most a batch of encoding.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import time

from deployments.core.errors import Conflict, InvalidInput
from deployments.core.index.second_vectors import Apply, Encode, SecondVectors, own_vectors
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.search.one_commit import Snapshots
from deployments.core.segments import EmbeddingType, Models
from deployments.core.storage import migration_record, standby
from deployments.core.storage.migration_record import MigrationRecord, MigrationStatus, Phase
from deployments.core.storage.operations import Maintenance
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage.store_writer import StoreWriter

logger = logging.getLogger(__name__)


class Migration:
    """The change of one index to another model; safe in any thread, one works at a time.

    Each method raises StoreError, NotReady, and what `apply` and `encode` raise.
    """

    def __init__(self, index: SegmentIndex, apply: Apply, encode: Encode) -> None:
        self._index = index
        self._apply = apply
        self._second = SecondVectors(index, apply, encode)
        self._working = threading.Lock()

    def status(self) -> MigrationStatus | None:
        """How far the migration is, if there is one."""

        def read(reader: StoreReader, _: Snapshots) -> MigrationStatus | None:
            record = migration_record.read(reader)
            if record is None:
                return None
            present, other = reader.models(), standby.models(reader)
            switched = record.phase is Phase.SWITCHED
            old, new = (other, present) if switched else (present, other)
            return MigrationStatus(record, old, new, *standby.counts(reader))

        return self._index.read(read)

    def start(self, target: Models, *, switch_when_ready: bool = True) -> None:
        """Begin to encode with other models, or go on where it was given up.

        What an earlier migration has left of an older model is removed. Raises InvalidInput if the
        index has these models, Conflict if it is being migrated to others.
        """
        with self._working:
            if _same(target, self._index.models):
                raise InvalidInput(f"the index has the vectors of {_names(target)} already")
            for kind in self._second.changing(target):
                if own := self._index.read(partial(_own_rows, kind=kind)):
                    raise InvalidInput(own_vectors(kind, own))
            record, present = self._record(), self._second.models()
            began = MigrationRecord(Phase.RUNNING, switch_when_ready, time())
            is_new = record is None or record.phase is Phase.SWITCHED
            if record is not None and not is_new:
                if not _same(target, present):
                    raise Conflict(
                        f"a migration to {_names(present)} isn't done; cancel it before another one"
                    )
                phase = Phase.RUNNING if record.phase is Phase.FAILED else record.phase
                began = replace(
                    record, phase=phase, switch_when_ready=switch_when_ready, reason=None
                )

            def begin(writer: StoreWriter) -> None:
                if is_new:
                    standby.begin(writer, target)
                migration_record.write(writer, began)

            self._write(begin)
            if is_new:
                self._second.forget()
            logger.info("Encoding every segment with %s", _names(target))

    def step(self) -> bool:
        """Do the next piece of work; False if there is nothing to do now."""
        with self._working:
            record = self._record()
            if record is None or record.reason is not None:
                return False
            if self._second.catch_up():
                return True
            if record.phase is Phase.RUNNING:
                ready = replace(record, phase=Phase.READY, overlap=self._second.overlap())
                self._write(lambda writer: migration_record.write(writer, ready))
                logger.info("Every segment has a vector of the new model: %s", ready.overlap)
                return True
            if record.phase is Phase.READY and record.switch_when_ready:
                self._switch(record)
                return True
            self._second.rest()
            return False

    def switch(self) -> None:
        """Let searches use the new model. Raises Conflict unless it is ready."""
        with self._working:
            record = self._require(Phase.READY)
            self._catch_up()
            self._switch(record)

    def roll_back(self) -> None:
        """Let searches use the old model again. Raises Conflict unless it was switched."""
        with self._working:
            record = self._require(Phase.SWITCHED)
            self._catch_up()
            self._exchange(
                replace(
                    record,
                    phase=Phase.READY,
                    switch_when_ready=False,
                    switched_at=None,
                    reason=None,
                )
            )
            logger.info("Searches use the old model again")

    def end(self) -> None:
        """Remove the vectors that searches don't use: to give up, or to finish. Raises Conflict."""
        with self._working:
            self._require(*Phase)

            def remove(writer: StoreWriter) -> None:
                standby.end(writer)
                migration_record.write(writer, None)

            self._write(remove)
            self._second.forget()
            logger.info("The vectors of the other model were removed")

    def fail(self, reason: str) -> None:
        """Note why it can't go on; then nothing is done until someone asks for it again."""
        with self._working:
            record = self._record()
            if record is not None:
                running = record.phase is Phase.RUNNING
                failed = replace(
                    record,
                    phase=Phase.FAILED if running else record.phase,
                    switch_when_ready=running and record.switch_when_ready,
                    reason=reason,
                )
                self._write(lambda writer: migration_record.write(writer, failed))

    def _record(self) -> MigrationRecord | None:
        return self._index.read(lambda reader, _: migration_record.read(reader))

    def _require(self, *phases: Phase) -> MigrationRecord:
        record = self._record()
        if record is None:
            raise Conflict("there is no migration")
        if record.phase not in phases:
            raise Conflict(f"the migration is {record.phase}, not {' or '.join(phases)}")
        return record

    def _write(self, write: Callable[[StoreWriter], None]) -> None:
        def work(writer: StoreWriter) -> int:
            write(writer)
            return 0

        self._apply(Maintenance(work))

    def _catch_up(self) -> None:
        while self._second.catch_up():
            pass

    def _switch(self, record: MigrationRecord) -> None:
        self._exchange(replace(record, phase=Phase.SWITCHED, switched_at=time(), reason=None))
        logger.info("Searches use the new model")

    def _exchange(self, record: MigrationRecord) -> None:
        self._second.exchange(lambda writer: migration_record.write(writer, record))


def _same(one: Models, other: Models) -> bool:
    return all(model.makes_the_same_as(other[kind]) for kind, model in one.items())


def _own_rows(reader: StoreReader, _: Snapshots, kind: EmbeddingType) -> int:
    return standby.own_rows(reader, kind)


def _names(models: Models) -> str:
    return ", ".join(dict.fromkeys(model.name for model in models.values()))
