"""Reads the data sets. Their folders are given, never searched for outside of them."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

STSB = "stsb"
EARNINGS = "earnings22"
ACTIVITYNET = "activitynet_dev"
TATQA = "tatqa_dev"

T = TypeVar("T")


class MissingData(Exception):
    """A data set isn't where it should be; the message names it and what was looked for."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text to store, as a segment of a media item."""

    media_item_id: str
    id: str
    text: str
    start_time: float | None = None
    end_time: float | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SentencePairs:
    """Pairs of sentences and how similar people find them, 0 to 5."""

    first: list[str]
    second: list[str]
    scores: list[float]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """A BEIR data set: `relevance[query id][document id]` is above 0 where it is relevant.

    Has only the queries with a relevant document, and only the documents with a text.
    """

    name: str
    documents: list[Document]
    queries: dict[str, str]
    relevance: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Moment:
    """A description of a part of a video; times are seconds."""

    video_id: str
    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Moments:
    """Captions to store, and descriptions of the same videos by other people to find them with."""

    captions: list[Document]
    queries: list[Moment]


def read_stsb(data: Path) -> SentencePairs:
    """STS Benchmark's test set. Raises MissingData."""
    path = _find(data, STSB, "sts-test.csv") / "sts-test.csv"
    with path.open(encoding="utf-8", newline="") as file:
        # Some lines have the sentences' sources behind them.
        rows = [row[4:7] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    return SentencePairs(
        [row[1] for row in rows], [row[2] for row in rows], [float(row[0]) for row in rows]
    )


def read_earnings(data: Path) -> list[Document]:
    """Sentences of earnings calls, in order. Raises MissingData."""
    return [
        Document(
            line["video_id"],
            line["id"],
            line["text"],
            line["start"],
            line["end"],
            {"ticker": line["ticker"], "speaker": line["speaker"]},
        )
        for line in _lines(_find(data, EARNINGS, "segments.jsonl") / "segments.jsonl")
    ]


def read_activitynet(data: Path) -> Moments:
    """Captions and queries of ActivityNet Captions. Raises MissingData."""
    folder = _find(data, ACTIVITYNET, "captions.jsonl", "queries.jsonl")
    return Moments(
        [
            Document(line["video_id"], line["id"], line["text"], line["start"], line["end"])
            for line in _lines(folder / "captions.jsonl")
        ],
        [
            Moment(line["video_id"], line["start"], line["end"], line["text"])
            for line in _lines(folder / "queries.jsonl")
        ],
    )


def find_beir(data: Path) -> list[Path]:
    """Folders in the layout of BEIR: `data` itself and those in it. Raises MissingData."""
    layout = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
    candidates = [data, *sorted(path for path in data.iterdir() if path.is_dir())]
    found = [path for path in candidates if all((path / name).is_file() for name in layout)]
    if not found:
        raise MissingData(f"BEIR data sets: no folder in {data} has {', '.join(layout)}")
    return found


def read_beir(folder: Path) -> Retrieval:
    """A data set in the layout of BEIR. Title and text are joined by a space."""
    name = folder.resolve().name
    documents = [
        Document(name, line["_id"], text)
        for line in _lines(folder / "corpus.jsonl")
        if (text := f"{line.get('title', '')} {line['text']}".strip())
    ]
    relevance: dict[str, dict[str, int]] = {}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0:
                relevance.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    queries = {
        line["_id"]: line["text"]
        for line in _lines(folder / "queries.jsonl")
        if line["_id"] in relevance
    }
    return Retrieval(name, documents, queries, relevance)


def read_questions(data: Path, count: int) -> list[str]:
    """Up to `count` texts that people ask or describe with, evenly chosen from what there is.

    From the queries of ActivityNet and TAT-QA. Raises MissingData if there are none.
    """
    texts: list[str] = []
    for name in (ACTIVITYNET, TATQA):
        path = data / name / "queries.jsonl"
        if path.is_file():
            found = [line["text"] for line in _lines(path)]
            texts += evenly(found, count // 2)
    if not texts:
        raise MissingData(f"queries: {data} has neither {ACTIVITYNET} nor {TATQA}")
    return texts


def evenly(items: list[T], count: int) -> list[T]:
    """`count` of the items, or all if there are fewer, at equal distances."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _find(data: Path, name: str, *files: str) -> Path:
    """The folder `name` in `data`, or `data` itself if that has the files."""
    for folder in (data / name, data):
        if all((folder / file).is_file() for file in files):
            return folder
    raise MissingData(f"{name}: no {' and '.join(files)} in {data / name}")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)
