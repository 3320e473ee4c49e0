"""Single writes of a transaction, each with an outcome of its own."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from deployments.core.errors import ServiceError, StoreDamaged
from deployments.core.segments import DeleteMedia, Models, Upsert, UpsertResult
from deployments.core.storage import segment_writes
from deployments.core.storage.segment_writes import Change, Changes
from deployments.core.storage.store_writer import StoreWriter

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Maintenance:
    """A change to the store that leaves what searches find as it is.

    `work` makes it, and returns a number that says something of it.
    """

    work: Callable[[StoreWriter], int]


Operation = Upsert | DeleteMedia | Maintenance
Outcome = UpsertResult | int | ServiceError


def carry_out(
    writer: StoreWriter, operation: Operation, models: Models, changes: Changes
) -> Outcome:
    """Do one operation in an open transaction, and add to `changes` what it does to the vectors.

    An operation that is wrong changes nothing, and its error is the outcome. Raises StoreDamaged,
    and what leaves the transaction broken.
    """
    outcome: Outcome
    try:
        with writer.savepoint():
            if isinstance(operation, Upsert):
                prepared = segment_writes.prepare(operation, models)
                outcome, change = segment_writes.upsert(writer, prepared)
                made = {prepared.embedding_type: change}
            elif isinstance(operation, Maintenance):
                outcome, made = operation.work(writer), {}
            else:
                outcome, made = segment_writes.delete_media(writer, operation)
    except StoreDamaged:
        raise
    except ServiceError as error:
        if not writer.intact:
            raise
        return error
    except Exception as error:
        if not writer.intact:
            raise
        logger.exception("An operation failed unexpectedly.")
        return ServiceError(f"The operation failed: {type(error).__name__}: {error}")
    for kind, change in made.items():
        changes.setdefault(kind, Change()).merge(change)
    return outcome
