"""A look at everything: over HTTP while the service runs, and in its folder when it doesn't."""

import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from deployments.core.errors import ServiceError
from deployments.core.index.segment_index import SegmentIndex
from deployments.core.segments import EmbeddingType, ModelIdentity, Search
from deployments.core.vectors.checkpoint import path_of
from tests.crash.checks import Checks, Scorer
from tests.crash.http_api import Answer, Api
from tests.crash.ledger import Ledger, State, canonical
from tests.crash.report import Report
from tests.crash.workload import KINDS

PATIENCE_S = 30.0


class Inspection:
    """Compares all that is stored with the ledger."""

    def __init__(
        self, ledger: Ledger, report: Report, checks: Checks, scorer: Scorer, model: ModelIdentity
    ) -> None:
        self._ledger = ledger
        self._report = report
        self._checks = checks
        self._scorer = scorer
        self._model = model
        self._states: dict[str, State] = {}

    def over_http(self, api: Api, query: str, where: str) -> int:
        """Read everything, compare states, counts and scores; returns the number of segments.

        Nobody may write meanwhile.
        """
        states: dict[str, State] = {}
        counts: dict[str, int] = {}
        for kind in KINDS:
            results = self._search(api, query, kind, Checks.MOST).body["results"]
            counts[f"{kind}_vectors"] = len(results)
            for media, state in self._checks.entries(kind, results).items():
                states[media] = states.get(media, frozenset()) | state
            self._checks.scores(kind, query, results, self._scorer)
            self._checks.first_ones(self._search(api, query, kind, 10), results)
        self._checks.everything(states, where)
        stats = self._patiently(api, "GET", "/stats").body
        counts["total_vectors"] = sum(counts.values())
        if any(stats[name] != count for name, count in counts.items()):
            self._report.violate("wrong count", f"/stats says {stats}, found {counts}")
        self._states = states
        return counts["total_vectors"]

    def settle(self, before: float) -> None:
        """Take what was read last for certain."""
        self._ledger.settle(self._states, before)

    def _search(self, api: Api, query: str, kind: str, top_k: int) -> Answer:
        body = {"query": query, "embedding_type": kind, "top_k": top_k}
        return self._patiently(api, "POST", "/search", body)

    def _patiently(
        self, api: Api, method: str, path: str, body: dict[str, Any] | None = None
    ) -> Answer:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = api.request(method, path, body)
            self._report.answered(path[1:], answer, False)
            if answer.ok:
                return answer
            if time.monotonic() > deadline:
                raise NoAnswer(f"{method} {path}: {answer}")
            time.sleep(0.2)

    def of_folder(self, folder: Path, where: str) -> None:
        """Open a folder that no service uses, verify it, and compare it with the ledger."""
        try:
            with SegmentIndex.open(folder, self._model) as index:
                for problem in index.verify():
                    self._report.violate("store", f"{where}: {problem}")
                states: dict[str, State] = {}
                for kind in EmbeddingType:
                    for media, state in self._stored(index, kind).items():
                        states[media] = states.get(media, frozenset()) | state
                self._checks.everything(states, where)
                self._report.count("folders opened and verified")
        except ServiceError as error:
            self._report.violate("store", f"{where}: {type(error).__name__}: {error}")

    def _stored(self, index: SegmentIndex, kind: EmbeddingType) -> dict[str, State]:
        query = np.zeros((1, self._model.dimension), np.float32)
        query[0, 0] = 1
        (hits,) = index.search([Search(kind, Checks.MOST)], query)
        states: dict[str, State] = {}
        for hit in hits:
            segment = hit.segment
            stored = canonical(
                {
                    **segment.metadata,
                    "media_item_id": hit.media_item_id,
                    "segment_id": segment.id,
                    "start_time": segment.start_time,
                    "end_time": segment.end_time,
                    "text": segment.text,
                }
            )
            entry = (kind.value, str(segment.id), stored)
            media = str(hit.media_item_id)
            states[media] = states.get(media, frozenset()) | {entry}
        return states

    def of_checkpoints(self, folder: Path) -> None:
        """The files of a folder that was closed in order: Faiss finds each row in them."""
        with SegmentIndex.open(folder, self._model) as index:
            stats = index.stats()
        if stats.rebuilt:
            self._report.violate("store", f"checkpoints couldn't be used: {stats.rebuilt}")
        for kind in EmbeddingType:
            path = path_of(folder, kind)
            rows = faiss.read_index(str(path)).ntotal
            if rows != stats.vectors[kind]:
                self._report.violate(
                    "store", f"{path.name} has {rows} rows, the store {stats.vectors[kind]}"
                )


class NoAnswer(Exception):
    """The service doesn't answer for a long time although it should."""
