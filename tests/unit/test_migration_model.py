"""Random writes, kills and migrations: an index has at every moment what was written to it."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from migration_samples import (
    NEW,
    BothModels,
    cut_texts,
    encoded,
    found,
    is_cut,
    migration_of,
    write,
)
from storage_samples import FRAME, MODEL, MODELS

from deployments.core.errors import Conflict, InvalidInput, ModelNotFound, NotReady
from deployments.core.index import second_vectors
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import (
    DeleteMedia,
    EmbeddingType,
    ModelIdentity,
    Segment,
    Upsert,
    UpsertResult,
)

KINDS = st.sampled_from(EmbeddingType)
MEDIA = st.integers(1, 3)
TEXTS = st.sampled_from(["RSI", "MACD", "", "a chart of", "x" * 30])
SEGMENTS = st.builds(Segment, st.integers(1, 5), TEXTS)
UPSERTS = st.builds(
    Upsert,
    KINDS,
    MEDIA,
    st.lists(SEGMENTS, max_size=4, unique_by=lambda each: each.id).map(tuple),
    st.booleans(),
)
TARGETS = st.sampled_from(
    [
        dict.fromkeys(EmbeddingType, NEW),
        dict.fromkeys(EmbeddingType, MODEL),
        {**MODELS, FRAME: NEW},
        {**dict.fromkeys(EmbeddingType, NEW), FRAME: MODEL},
    ]
)


class MigrationMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.batch_rows = second_vectors.BATCH_ROWS
        second_vectors.BATCH_ROWS = 2
        self.base = Path(tempfile.mkdtemp())
        self.models = BothModels()
        self.contents: dict[tuple[EmbeddingType, int, int], str] = {}
        self.own: set[tuple[EmbeddingType, int, int]] = set()
        self.open()

    def open(self) -> None:
        self.index = SegmentIndex.open(self.base / "index", MODEL, accept_former=True)
        self.migration = migration_of(self.index, self.models)

    @rule(upsert=UPSERTS)
    def write(self, upsert: Upsert) -> None:
        write(self.index, upsert)
        kind, media = upsert.embedding_type, upsert.media_item_id
        if upsert.replace:
            self.forget(kind, media)
        self.contents |= {(kind, media, each.id): each.text for each in upsert.segments}
        self.own -= {(kind, media, each.id) for each in upsert.segments}

    @rule(kind=KINDS, media=MEDIA, name=st.integers(1, 5), text=TEXTS)
    def write_own(self, kind: EmbeddingType, media: int, name: int, text: str) -> None:
        """A vector that comes with a segment: here that of its text, so that it is found there."""
        status = self.migration.status()
        changes = status is not None and not status.old[kind].makes_the_same_as(status.new[kind])
        (vector,) = encoded(self.index.models[kind], [text])
        own = Upsert(kind, media, (Segment(name, text, embedding=vector.tobytes()),))
        (outcome,) = self.index.apply([own])
        if changes:
            assert isinstance(outcome, Conflict)
        else:
            assert isinstance(outcome, UpsertResult)
            self.contents[kind, media, name] = text
            self.own.add((kind, media, name))

    @rule(media=MEDIA, kind=st.none() | KINDS)
    def delete(self, media: int, kind: EmbeddingType | None) -> None:
        self.index.apply([DeleteMedia(media, kind)])
        for each in EmbeddingType if kind is None else [kind]:
            self.forget(each, media)

    def forget(self, kind: EmbeddingType, media: int) -> None:
        self.contents = {
            key: text for key, text in self.contents.items() if key[:2] != (kind, media)
        }
        self.own = {key for key in self.own if key[:2] != (kind, media)}

    @rule(to=TARGETS, switch=st.booleans())
    def begin(self, to: dict[EmbeddingType, ModelIdentity], switch: bool) -> None:
        with suppress(Conflict, InvalidInput):
            self.migration.start(to, switch_when_ready=switch)
            changing = {kind for kind in EmbeddingType if to[kind] != self.index.models[kind]}
            assert not changing & {kind for kind, *_ in self.own}

    @rule()
    def fail(self) -> None:
        """As the loop does where a step can't be done."""
        self.models.failures = [ModelNotFound("gone")]
        try:
            self.migration.step()
        except ModelNotFound:
            self.migration.fail("gone")
        self.models.failures = []

    @rule(times=st.integers(1, 12), failing=st.booleans())
    def step(self, times: int, failing: bool) -> None:
        if failing:
            self.models.failures = [NotReady("busy")]
        for _ in range(times):
            with suppress(NotReady):
                self.migration.step()
        self.models.failures = []

    @rule(act=st.sampled_from(["switch", "roll_back", "end"]))
    def act(self, act: str) -> None:
        status = self.migration.status()
        try:
            getattr(self.migration, act)()
        except Conflict:
            return
        assert status is not None
        if act == "switch":
            assert self.index.models == status.new
        elif act == "roll_back":
            assert self.index.models == status.old
        else:
            assert self.migration.status() is None

    @rule(killed=st.booleans())
    def restart(self, killed: bool) -> None:
        folder, copy = self.base / "index", self.base / "copy"
        models = self.index.models
        if killed:
            shutil.copytree(folder, copy)
        self.index.close()
        if killed:
            shutil.rmtree(folder)
            copy.rename(folder)
        self.open()
        assert self.index.models == models

    @rule()
    def checkpoint(self) -> None:
        self.index.checkpoint()

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "index"):
            return
        seen = {
            (kind, *key): text
            for kind in EmbeddingType
            for key, text in found(self.index, kind).items()
        }
        assert seen == self.contents
        cut = {
            text
            for (kind, *rest), text in self.contents.items()
            if is_cut(self.index.models[kind], text) and (kind, *rest) not in self.own
        }
        assert cut_texts(self.index) == cut

    def teardown(self) -> None:
        if hasattr(self, "index"):
            assert self.index.verify() == []
            self.index.close()
            shutil.rmtree(self.base)
            second_vectors.BATCH_ROWS = self.batch_rows


TestMigrationModel = MigrationMachine.TestCase
TestMigrationModel.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
