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
from time import time

from deployments.core.errors import Conflict, InvalidInput, NotReady
from deployments.core.index.second_vectors import Apply, Encode, SecondVectors
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.search.one_commit import Snapshots
from deployments.core.segments import Models
from deployments.core.storage import migration_record, own_vector_check, standby
from deployments.core.storage.migration_record import MigrationRecord, MigrationStatus, Phase
from deployments.core.storage.operations import Maintenance
from deployments.core.storage.store_reader import StoreReader
from deployments.core.storage.store_writer import StoreWriter

logger = logging.getLogger(__name__)

TOO_MANY_WRITES = (
    "segments are written about as fast as they are encoded with the other model, so that the "
    "searches can't change to it; pause what writes, or give the service more encoders "
    "(EMBEDDINGS_WORKERS), and try again"
)


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
        index has these models, or segments whose vectors can't be made from their texts; Conflict
        if it is being migrated to others.
        """
        with self._working:
            if _same(target, self._index.models):
                raise InvalidInput(f"the index has the vectors of {_names(target)} already")
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
                # Here, and not before: from now on no such segment is stored.
                for kind in standby.changing(writer.models(), target):
                    own_vector_check.require_none(writer, kind)
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
            if record is None or record.phase is Phase.FAILED:
                return False
            if self._second.catch_up():
                return True
            if record.phase is Phase.RUNNING:
                ready = replace(record, phase=Phase.READY, overlap=self._second.overlap())
                self._note(ready)
                logger.info("Every segment has a vector of the new model: %s", ready.overlap)
                return True
            if _is_to_switch(record):
                if not self._switch(record):
                    self._note(replace(record, reason=TOO_MANY_WRITES))
                    raise NotReady(TOO_MANY_WRITES)
                return True
            # What kept the vectors from being up to date is over.
            self._note(replace(record, reason=None))
            self._second.rest()
            return False

    def switch(self) -> None:
        """Let searches use the new model. Raises Conflict unless it is ready."""
        with self._working:
            if not self._switch(self._require(Phase.READY)):
                raise NotReady(TOO_MANY_WRITES)

    def roll_back(self) -> None:
        """Let searches use the old model again. Raises Conflict unless it was switched."""
        with self._working:
            back = replace(
                self._require(Phase.SWITCHED),
                phase=Phase.READY,
                switch_when_ready=False,
                switched_at=None,
                reason=None,
            )
            if not self._second.exchange(lambda writer: migration_record.write(writer, back)):
                raise NotReady(TOO_MANY_WRITES)
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
        """Note why it can't go on: where someone waits for it, it ends until it is started again.

        Else it is only to keep vectors up to date, and the next step tries that again.
        """
        with self._working:
            record = self._record()
            if record is not None:
                is_awaited = record.phase is Phase.RUNNING or _is_to_switch(record)
                phase = Phase.FAILED if is_awaited else record.phase
                self._note(replace(record, phase=phase, reason=reason))

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

    def _note(self, record: MigrationRecord) -> None:
        if record != self._record():
            self._write(lambda writer: migration_record.write(writer, record))

    def _switch(self, record: MigrationRecord) -> bool:
        switched = replace(record, phase=Phase.SWITCHED, switched_at=time(), reason=None)
        done = self._second.exchange(lambda writer: migration_record.write(writer, switched))
        if done:
            logger.info("Searches use the new model")
        return done


def _is_to_switch(record: MigrationRecord) -> bool:
    return record.phase is Phase.READY and record.switch_when_ready


def _same(one: Models, other: Models) -> bool:
    return all(model.makes_the_same_as(other[kind]) for kind, model in one.items())


def _names(models: Models) -> str:
    return ", ".join(dict.fromkeys(model.name for model in models.values()))
