"""The change of an Index to another model, with the help of the Encoders."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from deployments.core.configured_models import read_models
from deployments.core.encoding.batcher import Encoded
from deployments.core.encoding.text_encoder import TextKind
from deployments.core.errors import InvalidInput, StoreError
from deployments.core.index.migration import Migration
from deployments.core.index.migration_loop import MigrationLoop
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, ModelIdentity, Models
from deployments.core.settings import Settings
from deployments.core.storage.group_commit import GroupCommit
from deployments.core.storage.migration_record import Act, MigrationRequest, MigrationStatus
from deployments.core.storage.operations import Maintenance

logger = logging.getLogger(__name__)


class Encoding(Protocol):
    """Encodes for a migration: a RemoteEncoding."""

    def __call__(self, model: ModelIdentity, texts: Sequence[str], kind: TextKind) -> Encoded:
        """The texts' vectors; may be called in any thread. Raises a ServiceError."""
        ...

    def stop(self) -> None:
        """Give up what is being encoded, with NotReady, and refuse what comes."""
        ...


class IndexMigrations:
    """Carries out what is asked, and goes on with what was begun before a restart."""

    def __init__(
        self,
        settings: Settings,
        segments: SegmentIndex,
        writer: GroupCommit,
        encoding: Encoding,
    ) -> None:
        self._settings = settings
        self._segments = segments
        self._writer = writer
        self._encoding = encoding
        self._migration = Migration(segments, self._apply, encoding)
        self._loop = MigrationLoop(self._migration)

    def migrate(self, request: MigrationRequest) -> MigrationStatus | None:
        """Do what is asked, which may take seconds; the migration as it is then.

        Raises Conflict, InvalidInput, ModelError, StoreError, NotReady.
        """
        match request.act:
            case Act.START:
                target = self._target(request)
                self._migration.start(target, switch_when_ready=request.switch_when_ready)
            case Act.SWITCH:
                self._migration.switch()
            case Act.ROLL_BACK:
                self._migration.roll_back()
            case Act.END:
                self._migration.end()
        if request.act is not Act.STATUS:
            self._loop.wake()
        return self._migration.status()

    def status(self) -> MigrationStatus | None:
        """How far the migration is; None also where the store can't be read."""
        with suppress(StoreError):
            return self._migration.status()
        return None

    def close(self) -> None:
        """Stop after what is at work; a start goes on with it."""
        self._encoding.stop()
        self._loop.close()

    def _apply(self, change: Maintenance) -> int:
        outcome = self._writer.submit(change).result()
        assert isinstance(outcome, int)
        return outcome

    def _target(self, request: MigrationRequest) -> Models:
        wanted = dict.fromkeys(request.embedding_types, request.model)
        if not wanted:
            raise InvalidInput("the migration names no index")
        new = read_models(wanted, self._settings.embedding_precision)
        return {**self._segments.models, **new}


def warn_of_other_models(configured: Models, present: Models) -> None:
    """Tell the log which settings still name a model from before a migration."""
    for kind in EmbeddingType:
        if not configured[kind].makes_the_same_as(present[kind]):
            logger.warning(
                "The %s index was migrated from %s to %s, and goes on with it. Set EMBEDDING_MODEL "
                "(or EMBEDDING_MODEL_%s) to %s before the next start.",
                kind,
                configured[kind].name,
                present[kind].name,
                kind.value.upper(),
                present[kind].name,
            )
