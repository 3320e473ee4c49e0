"""The evaluation's own arithmetic, on cases that are worked out by hand."""

import json
import math

import numpy as np
import pytest

from tests.eval import beir, exact, metrics, moments
from tests.eval.client import batches
from tests.eval.datasets import (
    Document,
    MissingData,
    Moment,
    Retrieval,
    evenly,
    find_beir,
    read_beir,
    read_questions,
    read_stsb,
)
from tests.eval.measures import Measure, at_least, exactly, near_numpy
from tests.eval.ranking import rank

DOCUMENTS = [
    Document("a", "1", "north"),
    Document("a", "2", "east"),
    Document("b", "1", "north east"),
    Document("b", "2", "north"),
]
VECTORS = np.array([[1, 0], [0, 1], [math.sqrt(0.5), math.sqrt(0.5)], [1, 0]], np.float32)
QUERY = np.array([[0.8, 0.6]], np.float32)


def test_ndcg():
    # Found at ranks 2 and 4, of three relevant: 1/log2(3) + 1/log2(5) over 1 + 1/log2(3) + 1/2.
    expected = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 0.5)
    assert metrics.ndcg([0, 1, 0, 1], [1, 1, 1], 10) == pytest.approx(expected)
    assert metrics.ndcg([0, 1, 0, 1], [1, 1, 1], 1) == 0
    assert metrics.ndcg([3, 1], [1, 3], 10) == 1
    assert metrics.ndcg([1, 3], [1, 3], 10) == pytest.approx(
        (1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3))
    )


def test_recall_and_reciprocal_rank():
    assert metrics.recall([False, True, True], 4, 2) == 0.25
    assert metrics.reciprocal_rank([False, False, True, True]) == pytest.approx(1 / 3)
    assert metrics.reciprocal_rank([False]) == 0


@pytest.mark.parametrize(
    ("one", "other", "iou"),
    [
        ((0, 10), (0, 10), 1),
        ((0, 10), (5, 15), 1 / 3),
        ((0, 10), (10, 20), 0),
        ((2, 4), (0, 8), 0.25),
    ],
)
def test_interval_iou(one, other, iou):
    assert metrics.interval_iou(one, other) == pytest.approx(iou)
    assert metrics.interval_iou(other, one) == pytest.approx(iou)


def test_the_plain_ranking_breaks_ties_by_the_documents_order():
    ranking = rank(QUERY, VECTORS, 3)
    assert ranking.positions.tolist() == [[2, 0, 3]]
    assert ranking.cosines[0] == pytest.approx([1.4 * math.sqrt(0.5), 0.8, 0.8])
    equal = np.concatenate([VECTORS[:2]] * 100)
    assert rank(QUERY, equal, 200).positions.tolist() == [[*range(0, 200, 2), *range(1, 200, 2)]]


def hit(position, cosine):
    document = DOCUMENTS[position]
    names = {"media_item_id": document.media_item_id, "segment_id": document.id}
    return {"distance": 1 - cosine, "metadata": names}


RIGHT = [hit(2, 1.4 * math.sqrt(0.5)), hit(0, 0.8), hit(3, 0.8), hit(1, 0.6)]


def differences(hits):
    found = exact.compare(DOCUMENTS, VECTORS, QUERY, [hits])
    return found.order, found.scores, found.near_ties, found.ties


def test_exact_results_have_no_differences():
    assert differences(RIGHT) == (0, 0, 0, 0)


def test_exact_notices_what_is_wrong():
    assert differences([RIGHT[1], RIGHT[0], *RIGHT[2:]]) == (2, 0, 0, 0)
    assert differences([RIGHT[0], RIGHT[2], RIGHT[1], RIGHT[3]]) == (0, 0, 0, 2)
    assert differences(RIGHT[:3]) == (1, 0, 0, 0)
    assert differences([*RIGHT[:3], RIGHT[2]])[0] == 2
    assert differences([hit(2, 0.98), *RIGHT[1:]]) == (0, 1, 0, 0)


def test_exact_forgives_near_ties_only():
    documents = [Document("a", "1", "one"), Document("a", "2", "two")]
    for step, expected in ((4e-7, (0, 2)), (4e-6, (2, 0))):
        vectors = np.array([[0.8 + step, 0.6], [0.8, 0.6]], np.float32)
        query = np.array([[1, 0]], np.float32)
        names = [{"media_item_id": "a", "segment_id": one.id} for one in reversed(documents)]
        hits = [{"distance": 0.2, "metadata": metadata} for metadata in names]
        found = exact.compare(documents, vectors, query, [hits])
        assert (found.order, found.near_ties) == expected


def test_beir_values():
    retrieval = Retrieval("x", [], {"q": "?", "p": "?"}, {"q": {"d1": 1, "d2": 1}, "p": {"d3": 1}})
    values = beir._values(retrieval, {"q": ["d0", "d1"], "p": ["d3"]})
    assert values == {
        "nDCG@10": pytest.approx((1 / math.log2(3) / (1 + 1 / math.log2(3)) + 1) / 2),
        "recall@100": 0.75,
        "MRR@100": 0.75,
    }


def test_moments_need_the_right_video_and_the_right_part():
    query = Moment("v", 0, 10, "")
    others = [Moment("w", 0, 10, ""), Moment("v", 20, 30, ""), Moment("v", 0, 6, "")]
    values = moments._values([query, query], [others, [Moment("w", 0, 10, "")]])
    assert values == {
        "right video @1": 0,
        "right video @5": 0.5,
        "right video @10": 0.5,
        "IoU ≥ 0.5 @1": 0,
        "IoU ≥ 0.5 @5": 0.5,
        "IoU ≥ 0.5 @10": 0.5,
        "IoU ≥ 0.7 @1": 0,
        "IoU ≥ 0.7 @5": 0,
        "IoU ≥ 0.7 @10": 0,
    }


def test_targets():
    assert at_least(0.82, Measure("e", "d", "n", 0.82)).met is True
    assert at_least(0.82, Measure("e", "d", "n", 0.8199)).met is False
    assert exactly(0, Measure("e", "d", "n", 1)).met is False
    assert near_numpy(Measure("e", "d", "n", 0.4009, 0.4)).met is True
    assert near_numpy(Measure("e", "d", "n", 0.4011, 0.4)).met is False


def test_batches_keep_the_order_and_the_limits():
    items = ["x" * size for size in (30_000, 20_000, 1, 60_000, 5)] + ["y"] * 300
    parts = list(batches(items, len))
    assert [item for part in parts for item in part] == items
    assert [len(part) for part in parts] == [2, 1, 1, 256, 45]


def test_data_sets(tmp_path):
    with pytest.raises(MissingData, match="stsb"):
        read_stsb(tmp_path)
    with pytest.raises(MissingData, match="BEIR"):
        find_beir(tmp_path)
    with pytest.raises(MissingData, match="queries"):
        read_questions(tmp_path, 10)
    (tmp_path / "sts-test.csv").write_text('g\tf\ty\t1\t2.5\tA "man.\tA boy.\tsource\n')
    pairs = read_stsb(tmp_path)
    assert (pairs.first, pairs.second, pairs.scores) == (['A "man.'], ["A boy."], [2.5])

    folder = tmp_path / "small"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": "1", "title": "T", "text": "x"}, {"_id": "2", "title": "", "text": ""}]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    queries = [{"_id": "q", "text": "?"}, {"_id": "none", "text": "!"}]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t2\nnone\t1\t0\n")
    assert find_beir(tmp_path) == [folder]
    assert find_beir(folder) == [folder]
    retrieval = read_beir(folder)
    assert retrieval.documents == [Document("small", "1", "T x")]
    assert (retrieval.queries, retrieval.relevance) == ({"q": "?"}, {"q": {"1": 2}})


def test_evenly():
    assert evenly(list(range(10)), 4) == [0, 2, 5, 7]
    assert evenly([1, 2], 5) == [1, 2]
