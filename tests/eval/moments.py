"""Moments in videos: does a description find the part of the video that it describes?"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from tests.eval.client import Client, Type
from tests.eval.datasets import ACTIVITYNET, Moment, Moments, read_activitynet
from tests.eval.measures import Measure, at_least, near_numpy
from tests.eval.metrics import interval_iou
from tests.eval.ranking import rank

TYPE: Type = "clip"
DEPTHS = (1, 5, 10)
IOUS = (0.5, 0.7)
TARGETED = ("IoU ≥ 0.5 @1", "IoU ≥ 0.5 @5")
TIMES_NEAREST = 1.1
"""So much better than the nearest caption moments have to be there."""


def evaluate(client: Client, data: Path) -> list[Measure]:
    """How many queries have a caption, or a moment, of the right video and part at the top."""
    moments = read_activitynet(data)
    texts = [query.text for query in moments.queries]
    with client.stored(moments.captions, TYPE):
        results = client.search(texts, TYPE, max(DEPTHS))
        answers = client.moments(texts, max(DEPTHS))
    found = [
        [
            Moment(
                hit["metadata"]["media_item_id"],
                hit["metadata"]["start_time"],
                hit["metadata"]["end_time"],
                hit["metadata"]["text"],
            )
            for hit in hits
        ]
        for hits in results
    ]
    plain = _values(moments.queries, _plain(client, moments))
    merged = [
        [Moment(one["media_item_id"], one["start_time"], one["end_time"], "") for one in answer]
        for answer in answers
    ]
    measures = [
        near_numpy(
            Measure("nearest caption", ACTIVITYNET, name, value, plain[name], mode="semantic")
        )
        for name, value in _values(moments.queries, found).items()
    ]
    for name, value in _values(moments.queries, merged).items():
        measure = Measure("moments", ACTIVITYNET, name, value, plain[name])
        if name in TARGETED:
            measure = at_least(round(TIMES_NEAREST * plain[name], 4), measure)
        measures.append(measure)
    return measures


def _plain(client: Client, moments: Moments) -> list[list[Moment]]:
    captions = [
        Moment(one.media_item_id, one.start_time or 0.0, one.end_time or 0.0, one.text)
        for one in moments.captions
    ]
    documents = client.embed([caption.text for caption in captions], "document")
    queries = client.embed([query.text for query in moments.queries], "query")
    best = rank(queries, documents, max(DEPTHS)).positions
    return [[captions[position] for position in row] for row in best]


def _values(queries: Sequence[Moment], found: Sequence[Sequence[Moment]]) -> dict[str, float]:
    """The part of the queries with a right result among the first 1, 5 and 10."""
    # A result in another video has an overlap of -1, which is below every threshold.
    overlaps = [
        [
            interval_iou((query.start, query.end), (one.start, one.end))
            if one.video_id == query.video_id
            else -1.0
            for one in results
        ]
        for query, results in zip(queries, found, strict=True)
    ]
    thresholds = {"right video": 0.0} | {f"IoU ≥ {iou}": iou for iou in IOUS}
    return {
        f"{name} @{depth}": fmean(
            any(overlap >= least for overlap in row[:depth]) for row in overlaps
        )
        for name, least in thresholds.items()
        for depth in DEPTHS
    }
