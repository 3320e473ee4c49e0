"""Keyword and hybrid search of a SegmentIndex, against plain arithmetic over all texts."""

import tempfile
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from search_reference import bm25_scores
from storage_samples import (
    CLIP,
    FRAME,
    MODEL,
    TRANSCRIPT,
    segment,
    store_segments,
    upsert_of,
    vector_of,
    vectors_of,
)

from deployments.core.index.segment_index import SegmentIndex
from deployments.core.search import fusion, keyword_index
from deployments.core.segments import DeleteMedia, EmbeddingType, Hit, Search, SearchMode
from deployments.core.storage.analyzer import terms
from deployments.core.vectors.exact_search import cosines_of

KEYWORD, HYBRID, SEMANTIC = SearchMode.KEYWORD, SearchMode.HYBRID, SearchMode.SEMANTIC


def search(
    index: SegmentIndex,
    text: str,
    mode: SearchMode = KEYWORD,
    top_k: int = 1000,
    kind: EmbeddingType = TRANSCRIPT,
    min_similarity: float = 0.0,
    explain: bool = True,
) -> list[Hit]:
    wanted = Search(kind, top_k, min_similarity, mode=mode, text=text, explain=explain)
    (hits,) = index.search([wanted], vectors_of([text]))
    return hits


def names(hits: Sequence[Hit]) -> list[object]:
    return [hit.segment.id for hit in hits]


WORDS = ["rsi", "the", "S&P", "500", "EMA200", "10-K", "yields", "falling", "fell", "A", "risk"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
NAMES = st.integers(0, 5)
WRITES = st.one_of(
    st.tuples(
        st.sampled_from([TRANSCRIPT, FRAME]),
        NAMES,
        st.dictionaries(NAMES, TEXTS, max_size=4),
        st.booleans(),
    ),
    st.tuples(st.sampled_from([TRANSCRIPT, None]), NAMES, st.none(), st.none()),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rounds=st.lists(st.tuples(st.lists(WRITES, max_size=3), TEXTS), min_size=1, max_size=8))
def test_any_writes_and_searches_are_as_by_bm25_scores(rounds: list) -> None:
    stored: dict[tuple[EmbeddingType, int, int], str] = {}
    with tempfile.TemporaryDirectory() as folder, SegmentIndex.open(folder, MODEL) as index:
        for writes, query in rounds:
            for kind, media, texts, replace in writes:
                if texts is None:
                    index.apply([DeleteMedia(media, kind)])
                    stored = {
                        key: text
                        for key, text in stored.items()
                        if key[1] != media or (kind is not None and key[0] != kind)
                    }
                    continue
                parts = [segment(name, text) for name, text in texts.items()]
                index.apply([upsert_of(media, *parts, replace=replace, kind=kind)])
                if replace:
                    kept = {(kind, media, name) for name in texts}
                    stored = {
                        key: text
                        for key, text in stored.items()
                        if key[:2] != (kind, media) or key in kept
                    }
                stored |= {(kind, media, name): text for name, text in texts.items()}
            for kind in (TRANSCRIPT, FRAME):
                texts = {key[1:]: text for key, text in stored.items() if key[0] == kind}
                scores = bm25_scores(list(texts.values()), query) if texts else []
                expected = {key: score for key, score in zip(texts, scores, strict=True) if score}
                hits = search(index, query, kind=kind)
                found = {(hit.media_item_id, hit.segment.id): hit.score for hit in hits}
                assert found == pytest.approx(expected)
                ranking = [(-hit.score, hit.sequence) for hit in hits]
                assert ranking == sorted(ranking)
                assert [hit.segment.text for hit in hits] == [texts[key] for key in found]
                assert [hit.cosine for hit in hits] == [
                    cosines_of(vectors_of([hit.segment.text]), vector_of(query))[0] for hit in hits
                ]
        assert index.verify() == []


@pytest.fixture
def trading(index: SegmentIndex) -> SegmentIndex:
    texts = {
        "index": "Yesterday the S&P 500 fell by two percent.",
        "filing": "Read the risk factors in the company's 10-K filing.",
        "ratio": "A trade needs an R:R of at least two.",
        "average": "Price closed above the EMA200 again.",
        "other": "Support and resistance levels are areas, not lines.",
        "numbers": "Revenue was $1,234.5 million in 2019",
    }
    store_segments(index, 1, *(segment(name, text) for name, text in texts.items()))
    return index


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("S&P 500", ["index"]),
        ("s&p", ["index"]),
        ("10-K", ["filing"]),
        ("10‑k", ["filing"]),
        ("10K", ["filing"]),
        ("R:R", ["ratio"]),
        ("r:r?", ["ratio"]),
        ("EMA200", ["average"]),
        ("ema 200", ["average"]),
        ("EMA", ["average"]),
        ("1234.5", ["numbers"]),
        ("line area", ["other"]),
        ("the", []),
        ("nowhere", []),
    ],
)
def test_what_traders_write_is_found(trading: SegmentIndex, query: str, found: list[str]) -> None:
    assert names(search(trading, query)) == found


HOSTILE = [
    '"',
    '""" OR *',
    "NEAR(a b)",
    "transcript : fell",
    "fell*",
    "^fell",
    "fell AND NEAR",
    "(((",
    "-fell",
    "fell\x00down",
    "';DROP TABLE keywords;--",
    "🎉",
    "?!…",
    "\ud7ff\u200d",
    "a" * 20_000,
    " ".join("x" * i for i in range(3, 200)),
    "AND OR NEAR",
]


@pytest.mark.parametrize("query", HOSTILE)
def test_no_query_is_syntax(trading: SegmentIndex, query: str) -> None:
    expected = ["index"] if "fell" in query else []
    assert names(search(trading, query)) == expected
    assert sorted(map(str, names(search(trading, query, HYBRID)))) == sorted(
        ["index", "filing", "ratio", "average", "other", "numbers"]
    )


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(query=st.text() | st.text(alphabet="fel S&P500\"'*^:()-+{}"))
def test_no_text_is_syntax(trading: SegmentIndex, query: str) -> None:
    for mode in SearchMode:
        search(trading, query, mode)


def test_of_a_long_query_the_first_terms_count(trading: SegmentIndex) -> None:
    padding = " ".join(f"padding{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(400))
    assert names(search(trading, f"fell {padding}")) == ["index"]
    assert len(terms(padding)) > keyword_index.MOST_TERMS
    assert search(trading, f"{padding} fell") == []


def test_semantic_search_is_unchanged(trading: SegmentIndex) -> None:
    hits = search(trading, "S&P 500", SEMANTIC, explain=False)
    assert len(hits) == 6
    assert all(hit.score is None and hit.explanation is None for hit in hits)
    explained = search(trading, "S&P 500", SEMANTIC)
    assert names(explained) == names(hits)
    for rank, hit in enumerate(explained, 1):
        assert hit.explanation is not None
        assert (hit.explanation.semantic.rank, hit.explanation.keyword) == (rank, None)
        assert hit.explanation.semantic.value == hit.cosine


def test_hybrid_explains_how_its_score_comes_about(trading: SegmentIndex) -> None:
    query = "fell risk two"
    by_meaning = {
        hit.sequence: rank for rank, hit in enumerate(search(trading, query, SEMANTIC), 1)
    }
    worded = search(trading, query)
    by_words = {hit.sequence: (rank, hit.score) for rank, hit in enumerate(worded, 1)}
    assert len(by_words) == 3
    hits = search(trading, query, HYBRID)
    for hit in hits:
        told = hit.explanation
        assert told is not None
        assert told.keyword is not None
        assert told.fusion == hit.score
        assert told.semantic.score + told.keyword.score == pytest.approx(hit.score)  # type: ignore[operator]
        assert (told.semantic.rank, told.semantic.value) == (by_meaning[hit.sequence], hit.cosine)
        assert (told.keyword.rank, told.keyword.value) == by_words.get(hit.sequence, (None, 0.0))
    for part in ("semantic", "keyword"):
        values = [getattr(hit.explanation, part).value for hit in hits]
        weight = fusion.SEMANTIC_WEIGHT if part == "semantic" else 1 - fusion.SEMANTIC_WEIGHT
        expected = weight * (np.array(values) - np.mean(values)) / np.std(values)
        assert [getattr(hit.explanation, part).score for hit in hits] == pytest.approx(expected)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]
    assert len(set(scores)) == 6


def test_hybrid_without_known_words_is_semantic(trading: SegmentIndex) -> None:
    assert names(search(trading, "unheard", HYBRID)) == names(search(trading, "unheard", SEMANTIC))


def test_hybrid_of_one_segment_and_of_none(index: SegmentIndex) -> None:
    assert search(index, "rsi", HYBRID) == []
    assert search(index, "rsi") == []
    store_segments(index, 1, segment("a", "rsi"))
    (hit,) = search(index, "rsi", HYBRID)
    assert (hit.segment.id, hit.score) == ("a", 0)
    assert search(index, "rsi", HYBRID, kind=CLIP) == []


def test_candidates_come_from_both_parts(
    index: SegmentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.core.search.ranking.DEPTH", 2)
    texts = [f"{chr(97 + i)}qx" for i in range(20)]
    store_segments(index, 1, *(segment(i, text) for i, text in enumerate([*texts, "rare"])))
    near = names(search(index, "a rare thing", SEMANTIC, top_k=3))
    assert 20 not in near
    hits = search(index, "a rare thing", HYBRID, top_k=3)
    assert 20 in names(hits)
    assert set(names(hits)) < {*near, 20}


def test_words_of_a_script_without_spaces_are_found(index: SegmentIndex) -> None:
    texts = ["移动平均线突破信号", "支撑位和阻力位", "移動平均線のゴールデンクロス"]
    store_segments(index, 1, *(segment(i, text) for i, text in enumerate(texts)))
    assert names(search(index, "移动平均线", KEYWORD))[0] == 0
    assert names(search(index, "阻力", KEYWORD)) == [1]
    assert names(search(index, "クロス", KEYWORD)) == [2]


def test_initials_are_found_with_and_without_dots(index: SegmentIndex) -> None:
    store_segments(index, 1, segment(1, "Yields in the U.S. fell"), segment(2, "The US and Japan"))
    assert sorted(names(search(index, "US yields", KEYWORD))) == [1, 2]
    assert sorted(names(search(index, "u.s.", KEYWORD))) == [1, 2]


def test_hybrid_scores_don_t_depend_on_how_many_are_wanted(
    index: SegmentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.core.search.ranking.DEPTH", 3)
    texts = [f"{'rsi ' * (i % 5)}{'fell ' * (i % 3)}text {i}" for i in range(30)]
    store_segments(index, 1, *(segment(i, text) for i, text in enumerate(texts)))
    scores = [
        {hit.segment.id: hit.score for hit in search(index, "rsi fell", HYBRID, top_k=top_k)}
        for top_k in (2, 10, 30)
    ]
    for fewer, more in pairwise(scores):
        assert fewer.keys() <= more.keys()
        assert fewer == {segment_id: more[segment_id] for segment_id in fewer}


@pytest.mark.parametrize("mode", list(SearchMode))
def test_min_similarity_is_of_the_cosine(trading: SegmentIndex, mode: SearchMode) -> None:
    everything = search(trading, "two percent risk filing", mode)
    assert len(everything) >= 2
    least = sorted(hit.cosine for hit in everything)[1]
    least = max(least, 0.0)
    kept = search(trading, "two percent risk filing", mode, min_similarity=least)
    assert kept == [hit for hit in everything if max(hit.cosine, 0.0) >= least]


def test_results_don_t_depend_on_company(trading: SegmentIndex) -> None:
    searches = [
        Search(kind, top_k, mode=mode, text=text, explain=True)
        for kind in (TRANSCRIPT, FRAME)
        for mode in SearchMode
        for top_k in (1, 3)
        for text in ("two percent", "S&P 500 fell")
    ]
    together = trading.search(searches, vectors_of(each.text for each in searches))
    for each, hits in zip(searches, together, strict=True):
        assert trading.search([each], vectors_of([each.text])) == [hits]


def test_after_a_restart_and_with_little_memory(
    open_index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyword_index, "_MOST_PLACES", 3)
    monkeypatch.setattr(keyword_index, "_FEW_ROWS", 2)
    index = open_index()
    texts = [f"rsi {'ema ' * (i % 3)} {'macd' if i % 5 else 'S&P'}" for i in range(30)]
    for i, text in enumerate(texts):
        store_segments(index, i % 4, segment(i, text))
        scores = [score for score in bm25_scores(texts[: i + 1], "ema macd S&P") if score]
        found = [hit.score for hit in search(index, "ema macd S&P")]
        assert found == pytest.approx(sorted(scores, reverse=True))
    before = search(index, "ema macd S&P")
    index.close()
    index = open_index()
    assert search(index, "ema macd S&P") == before
    index.delete_media(1)
    index.delete_media(2)
    index.delete_media(3)
    store_segments(index, 0, segment("new", "rsi"))
    left = [text for i, text in enumerate(texts) if i % 4 == 0] + ["rsi"]
    scores = [score for score in bm25_scores(left, "ema macd S&P") if score]
    found = [hit.score for hit in search(index, "ema macd S&P")]
    assert found == pytest.approx(sorted(scores, reverse=True))


def test_a_reader_that_was_overtaken_looks_again(index: SegmentIndex) -> None:
    """What a newer reader has left in memory lacks rows that an older one can see."""
    store_segments(index, 1, segment("a", "rsi falls"), segment("b", "rsi"))
    with index._store.reading() as reader:
        reader.commit_id()
        snapshot = index._published.current.snapshots[TRANSCRIPT]
        index.delete_media(1)
        assert search(index, "rsi") == []
        with pytest.raises(keyword_index.Overtaken):
            index.reads._keywords.search(reader, TRANSCRIPT, snapshot, [("rsi", None)])
