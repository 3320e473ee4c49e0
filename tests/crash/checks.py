"""Comparing answers with the ledger, and scores with an encoder of the test's own."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from deployments.core.encoding.text_encoder import TextEncoder
from tests.crash.http_api import Answer
from tests.crash.ledger import NOTHING, Ledger, State, Write, canonical, fault_of, only
from tests.crash.report import Report

SAME_TEXT = 0.9999
SCORE_TOLERANCE = 1e-5
"""Two batches of one text differ by some 1e-7."""

_ENCODED_AT_ONCE = 32


class Scorer:
    """Cosines by brute force. For one thread."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._vectors: dict[str, np.ndarray] = {}

    def cosines(self, query: str, texts: Iterable[str]) -> np.ndarray:
        """float64, one for each text."""
        texts = list(texts)
        unknown = list(dict.fromkeys(text for text in texts if text not in self._vectors))
        for start in range(0, len(unknown), _ENCODED_AT_ONCE):
            part = unknown[start : start + _ENCODED_AT_ONCE]
            vectors = self._encoder.encode(self._encoder.tokenize(part, "document"))
            self._vectors.update(zip(part, vectors.astype(np.float64), strict=True))
        (vector,) = self._encoder.encode(self._encoder.tokenize([query], "query"))
        rows = np.array([self._vectors[text] for text in texts]).reshape(len(texts), len(vector))
        return rows @ vector.astype(np.float64)


class Checks:
    """Everything that an answer can get wrong."""

    MOST = 100_000
    """As `top_k`: everything."""

    def __init__(self, ledger: Ledger, report: Report) -> None:
        self._ledger = ledger
        self._report = report

    @staticmethod
    def parsed(stored: str) -> dict[str, Any]:
        return json.loads(stored)

    def write_answer(
        self, write: Write, before: tuple[State, ...], answer: Answer, unchanged: bool
    ) -> None:
        """The counts in the answer to a write that was acknowledged."""
        if write.delete:
            sizes = {len(state) - len(write.applied_to(state)) for state in before}
            if answer.body["embeddings_deleted"] not in sizes:
                self._report.violate("wrong count", f"{write}: {answer.body}, expected {sizes}")
            return
        body = answer.body
        if body["embeddings_created"] != len(write.segments) or body["changed"] > len(
            write.segments
        ):
            self._report.violate("wrong count", f"{write}: {body}")
        if unchanged and body["changed"]:
            self._report.violate("wrong count", f"an unchanged repeat, {write}: {body}")

    def own_text(self, stored: str, answer: Answer, top_k: int, *, first: bool = False) -> None:
        """A search for a stored segment's text has to find it, with the score of equal texts."""
        results = answer.body["results"]
        self._form(results)
        for position, result in enumerate(results):
            if canonical(result["metadata"]) == stored:
                if 1 - result["distance"] < SAME_TEXT or (first and position > 0):
                    self._wrong(
                        f"position {position}, distance {result['distance']}", stored, answer
                    )
                return
        crowded = len(results) == top_k and 1 - results[-1]["distance"] >= SAME_TEXT
        if not crowded or first:
            self._wrong("not among the results", stored, answer)

    def reading(self, kind: str, answer: Answer, seen: Mapping[str, set[State]]) -> None:
        """All of a type, read while others wrote: each media item in a state that it had."""
        for media, observed in self.entries(kind, answer.body["results"]).items():
            allowed = only(kind, seen.get(media, {NOTHING}))
            if observed not in allowed:
                self._stray(media, observed, allowed)
        absent = set(seen) - {
            str(each["metadata"]["media_item_id"]) for each in answer.body["results"]
        }
        for media in absent:
            allowed = only(kind, seen[media])
            if NOTHING not in allowed:
                self._stray(media, NOTHING, allowed)

    def entries(self, kind: str, results: list[dict[str, Any]]) -> dict[str, State]:
        """The states of the media items in results; a segment that is there twice is noted."""
        self._form(results)
        found: dict[str, dict[str, str]] = {}
        for result in results:
            metadata = result["metadata"]
            segments = found.setdefault(str(metadata["media_item_id"]), {})
            segment = str(metadata["segment_id"])
            if segment in segments:
                self._report.violate("duplicate", f"{kind}: {metadata} and {segments[segment]}")
            segments[segment] = canonical(metadata)
        return {
            media: frozenset((kind, segment, stored) for segment, stored in segments.items())
            for media, segments in found.items()
        }

    def everything(self, observed: Mapping[str, State], where: str) -> None:
        """Each media item, of all types together, in one of its possible states."""
        for media in {*observed, *self._ledger.media()}:
            allowed = self._ledger.possible(media)
            state = observed.get(media, NOTHING)
            if state not in allowed:
                self._stray(media, state, allowed, where=where)

    def scores(self, kind: str, query: str, results: list[dict[str, Any]], scorer: Scorer) -> None:
        """Every score of a search that returned everything, against brute force."""
        expected = scorer.cosines(query, [each["metadata"]["text"] for each in results])
        found = np.array([1 - each["distance"] for each in results])
        self._report.count("scores compared with brute force", len(results))
        off = np.flatnonzero(~(np.abs(found - expected) <= SCORE_TOLERANCE))
        if len(off):
            worst = results[off[0]]
            self._report.violate(
                "wrong answer",
                f"{len(off)} of {len(results)} {kind} scores for {query!r} are off, the first is "
                f"{found[off[0]]}, expected {expected[off[0]]}: {worst['metadata']}",
            )

    def first_ones(self, answer: Answer, everything: list[dict[str, Any]]) -> None:
        """The best ten have to be among everything, with the scores of its first ten.

        Within the tolerance: the query may have been encoded beside another one.
        """
        distances = {canonical(each["metadata"]): each["distance"] for each in everything}
        ten = answer.body["results"]
        for result, expected in zip(ten, everything[:10], strict=False):
            listed = distances.get(canonical(result["metadata"]), math.inf)
            found = result["distance"]
            if max(abs(found - listed), abs(found - expected["distance"])) > SCORE_TOLERANCE:
                self._report.violate(
                    "wrong answer", f"among the best ten {result}, expected {expected}"
                )
        if len(ten) != min(10, len(everything)):
            self._report.violate("wrong answer", f"{len(ten)} of {len(everything)} in the best ten")

    def _form(self, results: list[dict[str, Any]]) -> None:
        previous = -math.inf
        for position, result in enumerate(results):
            distance = result["distance"]
            similarity = min(1.0, max(0.0, 1.0 - distance))
            if (
                result["index"] != position
                or distance < previous
                or abs(result["similarity"] - similarity) > 1e-12
            ):
                self._report.violate("wrong answer", f"out of order or of form: {result}")
            previous = distance

    def _wrong(self, what: str, stored: str, answer: Answer) -> None:
        media = str(self.parsed(stored)["media_item_id"])
        shown = [(each["distance"], each["metadata"]) for each in answer.body["results"][:3]]
        self._report.violate(
            "wrong answer",
            f"{stored}: {what}",
            results=shown,
            began=answer.began,
            seconds=answer.seconds,
            history=self._ledger.history(media),
        )

    def _stray(
        self,
        media: str,
        observed: State,
        allowed: Iterable[State],
        where: str = "while others wrote",
    ) -> None:
        allowed = list(allowed)
        nearest = min(allowed, key=lambda state: len(state ^ observed))
        self._report.violate(
            fault_of(observed, allowed),
            f"media item {media!r}, {where}",
            missing=sorted(nearest - observed),
            unexpected=sorted(observed - nearest),
            allowed_states=len(allowed),
            history=self._ledger.history(media),
        )
