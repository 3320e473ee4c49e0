"""SegmentIndex against a dict and plain numpy, under random operations, restarts and damage."""

import itertools
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from storage_samples import FRAME, MODEL, TRANSCRIPT, upsert_of, vector_of, vectors_of

from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import (
    DeleteMedia,
    EmbeddingType,
    Id,
    Search,
    Segment,
    Upsert,
    UpsertResult,
    Vectors,
)
from deployments.core.vectors import collection as collection_module
from deployments.core.vectors.checkpoint import path_of
from deployments.core.vectors.exact_search import cosines_of

MEDIA = st.sampled_from([1, "1", 2, "two"])
KINDS = st.sampled_from([TRANSCRIPT, FRAME])
TEXTS = ["alpha", "beta", "gamma", "music", ""]
SEGMENTS = st.lists(
    st.builds(
        Segment,
        st.sampled_from([1, "1", 2, 3, "three", 4, 5]),
        st.sampled_from(TEXTS),
        st.sampled_from([None, 0, 0.0, 1.5]),
        st.none(),
        st.sampled_from([{}, {"tag": 1}, {"tag": 1.0}]),
        st.sampled_from([None, None, None, *(vector_of(name).tobytes() for name in ("x", "y"))]),
    ),
    max_size=6,
    unique_by=lambda each: str(each.id),
)
REQUESTS = st.builds(Upsert, KINDS, MEDIA, SEGMENTS.map(tuple), st.booleans())
OPERATIONS = st.one_of(
    st.tuples(REQUESTS, st.booleans()),
    st.tuples(st.builds(DeleteMedia, MEDIA, st.none() | KINDS), st.just(False)),
)


@dataclass(frozen=True)
class Row:
    """What the model knows of a stored segment; `order` grows with every change."""

    order: int
    media_item_id: Id
    segment: Segment

    @property
    def shown(self) -> str:
        # repr tells 1 from 1.0 and "1".
        return repr((self.media_item_id, replace(self.segment, embedding=None)))

    @property
    def vector(self) -> Vectors:
        own = self.segment.embedding
        return vector_of(self.segment.text) if own is None else np.frombuffer(own, np.float32)


Key = tuple[EmbeddingType, str, str]


class Model:
    def __init__(self) -> None:
        self.rows: dict[Key, Row] = {}
        self._order = itertools.count(1)

    def of_media(self, kind: EmbeddingType, media: Id) -> list[Key]:
        return [key for key in self.rows if key[:2] == (kind, str(media))]

    def upsert(self, request: Upsert, known: bool) -> UpsertResult:
        kind, media = request.embedding_type, request.media_item_id
        stored = [self.rows[key].segment for key in self.of_media(kind, media)]
        texts = {each.text for each in stored if each.embedding is None}
        if not known:
            absent = [
                i
                for i, each in enumerate(request.segments)
                if each.embedding is None and each.text not in texts
            ]
            if absent:
                return UpsertResult(missing=tuple(absent))
        changed = removed = 0
        if request.replace:
            kept = {str(each.id) for each in request.segments}
            for key in self.of_media(kind, media):
                if key[2] not in kept:
                    del self.rows[key]
                    removed += 1
        for each in request.segments:
            key = (kind, str(media), str(each.id))
            before = self.rows.get(key)
            # repr tells 1 from 1.0 and "1".
            if before is None or repr((before.media_item_id, before.segment)) != repr(
                (media, each)
            ):
                self.rows[key] = Row(next(self._order), media, each)
                changed += 1
        return UpsertResult(len(request.segments), changed, removed)

    def delete(self, request: DeleteMedia) -> int:
        kinds = [request.embedding_type] if request.embedding_type else list(EmbeddingType)
        keys = [key for kind in kinds for key in self.of_media(kind, request.media_item_id)]
        for key in keys:
            del self.rows[key]
        return len(keys)

    def search(self, search: Search, text: str) -> list[tuple[float, str]]:
        rows = sorted(
            (row for key, row in self.rows.items() if key[0] == search.embedding_type),
            key=lambda row: row.order,
        )
        if not rows:
            return []
        cosines = cosines_of(np.array([row.vector for row in rows]), vector_of(text))
        best = np.argsort(-cosines, kind="stable")[: search.top_k]
        return [
            (float(cosines[i]), rows[i].shown)
            for i in best
            if max(cosines[i], 0.0) >= search.min_similarity
        ]


class IndexMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        # Small numbers, so that growth and compaction happen all the time.
        self.limits = (collection_module._COMPACT_ROWS, collection_module._FIRST_CAPACITY)
        collection_module._COMPACT_ROWS, collection_module._FIRST_CAPACITY = 3, 2
        self.base = Path(tempfile.mkdtemp())
        self.folder = self.base / "index"
        self.index = SegmentIndex.open(self.folder, MODEL)
        self.model = Model()

    @rule(operations=st.lists(OPERATIONS, min_size=1, max_size=4))
    def apply(self, operations: Sequence[tuple[Upsert | DeleteMedia, bool]]) -> None:
        requests, expected = [], []
        for operation, known in operations:
            if isinstance(operation, Upsert):
                full = upsert_of(
                    operation.media_item_id, *operation.segments, kind=operation.embedding_type
                )
                completed = replace(full, replace=operation.replace)
                requests.append(completed if known else operation)
                expected.append(self.model.upsert(operation, known))
            else:
                requests.append(operation)
                expected.append(self.model.delete(operation))
        assert self.index.apply(requests) == expected

    @rule()
    def restart(self) -> None:
        self.index.close()
        self.index = SegmentIndex.open(self.folder, MODEL)
        assert self.index.stats().rebuilt == {}

    @rule()
    def kill(self) -> None:
        """Go on from a copy of the files, as after a kill: nothing is closed before."""
        copy = self.base / "copy"
        shutil.copytree(self.folder, copy)
        self.index.close()
        shutil.rmtree(self.folder)
        copy.rename(self.folder)
        self.index = SegmentIndex.open(self.folder, MODEL)

    @rule()
    def checkpoint(self) -> None:
        self.index.checkpoint()

    @precondition(lambda self: self.model.rows)
    @rule(kind=KINDS, position=st.integers(0, 10_000), data=st.data())
    def damage_the_checkpoint(
        self, kind: EmbeddingType, position: int, data: st.DataObject
    ) -> None:
        self.index.close()
        path = path_of(self.folder, kind)
        content = bytearray(path.read_bytes())
        match data.draw(st.sampled_from(["delete", "cut", "flip"])):
            case "delete":
                path.unlink()
            case "cut":
                path.write_bytes(content[: position % len(content)])
            case "flip":
                content[position % len(content)] ^= 1
                path.write_bytes(content)
        self.index = SegmentIndex.open(self.folder, MODEL)
        held = any(key[0] == kind for key in self.model.rows)
        assert set(self.index.stats().rebuilt) == ({kind} if held or path.exists() else set())

    @rule(
        searches=st.lists(
            st.tuples(
                st.builds(Search, KINDS, st.integers(1, 30), st.sampled_from([0.0, 0.3, 1.0])),
                st.sampled_from([*TEXTS, "something else"]),
            ),
            min_size=1,
            max_size=5,
        )
    )
    def search(self, searches: Sequence[tuple[Search, str]]) -> None:
        found = self.index.search(
            [search for search, _ in searches], vectors_of(text for _, text in searches)
        )
        for (search, text), hits in zip(searches, found, strict=True):
            answer = [(hit.cosine, repr((hit.media_item_id, hit.segment))) for hit in hits]
            assert answer == self.model.search(search, text)

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "model"):
            counts = dict.fromkeys(EmbeddingType, 0)
            for kind, _, _ in self.model.rows:
                counts[kind] += 1
            assert self.index.stats().vectors == counts

    def teardown(self) -> None:
        if hasattr(self, "index"):
            assert self.index.verify() == []
            self.index.close()
            shutil.rmtree(self.base)
            collection_module._COMPACT_ROWS, collection_module._FIRST_CAPACITY = self.limits


TestSegmentIndexModel = IndexMachine.TestCase
TestSegmentIndexModel.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
