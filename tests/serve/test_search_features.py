"""Filters, pages, groups, batches and lists through the whole service."""

import pytest

SEGMENTS = [
    {"id": 1, "text": "The S&P 500 fell below its moving average", "start_time": 0, "end_time": 4},
    {"id": 2, "text": "RSI above 70 means overbought", "start_time": 4, "end_time": 9, "level": 70},
    {"id": 3, "text": "RSI below 30 means oversold", "start_time": 9, "end_time": 15, "level": 30},
]
NAMES = ["features/a", "features b", 7001]


@pytest.fixture(scope="module", autouse=True)
def stored(service):
    for name in NAMES:
        segments = [{**each, "course": {"name": "features", "of": name}} for each in SEGMENTS]
        service.embed(name, segments, kind="clip")


def ask(service, path="/search", **fields):
    response = service.post(path, {"embedding_type": "clip", **fields})
    assert response.status_code == 200, response.text
    return response.json()


def found(answer):
    return [
        (result["metadata"]["media_item_id"], result["metadata"]["segment_id"])
        for result in answer["results"]
    ]


@pytest.mark.parametrize("mode", ["semantic", "keyword", "hybrid"])
def test_filters_in_every_mode_and_by_url(service, mode):
    wanted = {"course.of": {"$in": NAMES}, "level": {"$gte": 30, "$lt": 70}}
    answer = ask(service, query="RSI oversold", mode=mode, filter=wanted)
    assert sorted(map(str, found(answer))) == sorted(str((name, 3)) for name in NAMES)
    assert answer["exhausted"] is True
    by_url = service.get(
        "/search/clips",
        params={
            "query": "RSI oversold",
            "mode": mode,
            "media_item_id": "7001",
            "from": 10,
            "metadata.level": 30,
        },
    ).json()
    assert found(by_url) == [(7001, 3)]


def test_groups_pages_context_and_highlights(service):
    wanted = {"course.name": "features"}
    fields = {"query": "S&P 500", "mode": "hybrid", "filter": wanted, "group_by": "media_item_id"}
    first = ask(service, **fields, group_size=2, top_k=2, cursor="*", context=1, highlight=True)
    for result in first["results"]:
        assert result["metadata"]["segment_id"] == 1
        (start, end), *_ = result["highlights"]
        assert result["metadata"]["text"][start:end] == "S&P 500"
        assert [each["segment_id"] for each in result["context"]["after"]] == [2]
        assert result["context"]["before"] == []
        assert len(result["others"]) == 1
    second = ask(service, **fields, group_size=2, top_k=2, cursor=first["next_cursor"])
    groups = [name for name, _ in found(first) + found(second)]
    assert sorted(map(str, groups)) == sorted(map(str, NAMES))
    assert (second["next_cursor"], second["exhausted"]) == (None, True)
    once = ask(service, query="overbought", filter=wanted, deduplicate=0.999)
    assert sorted(segment for _, segment in found(once)) == [1, 2, 3]


def test_a_batch_answers_as_single_searches_do(service):
    queries = [
        {"query": each["text"], "embedding_type": "clip", "filter": {"course.name": "features"}}
        for each in SEGMENTS
    ]
    batch = service.post("/search/batch", {"queries": queries}).json()["responses"]
    for query, answer in zip(queries, batch, strict=True):
        single = ask(service, **query)
        assert found(answer) == found(single)
        assert [each["similarity"] for each in answer["results"]] == pytest.approx(
            [each["similarity"] for each in single["results"]], abs=1e-5
        )


def test_similar_segments(service):
    name = {"media_item_id": "7001", "segment_id": "2"}
    answer = ask(service, "/search/similar", **name, top_k=3)
    assert (7001, 2) not in found(answer)
    assert sorted(map(str, found(answer)[:2])) == sorted(str((each, 2)) for each in NAMES[:2])
    missing = service.post("/search/similar", {**name, "embedding_type": "frame"})
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


def test_lists(service):
    listed, cursor = [], None
    while True:
        parameters = {"embedding_type": "clip", "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = service.get("/media", params=parameters).json()
        listed += page["media"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    ours = {each["media_item_id"]: each["segments"] for each in listed}
    assert [ours[name]["clip"] for name in NAMES] == [3, 3, 3]
    segments = service.get("/media/features/a/segments").json()["segments"]
    assert [each["metadata"]["segment_id"] for each in segments] == [1, 2, 3]
    assert segments[1]["metadata"]["course"] == {"name": "features", "of": "features/a"}
    assert service.get("/media/features/segments").status_code == 404


def test_vectors_that_were_made_elsewhere(service):
    own = {name: [float(name == place) for place in range(384)] for name in range(3)}
    segments = [{"id": name, "embedding": vector} for name, vector in own.items()]
    for changed in (3, 0):
        assert service.embed("features own", segments, kind="frame")["changed"] == changed
    wanted = {"embedding_type": "frame", "filter": {"media_item_id": "features own"}}
    answer = ask(service, **wanted, embedding=[1, 2, 0.5, *[0] * 381])
    assert [segment for _, segment in found(answer)] == [1, 0, 2]
    fields = {"embeddings": {"frame": own[2]}, "types": {"frame": 1}, "mode": "semantic"}
    moments = ask(service, "/search/moments", **wanted, **fields)["moments"]
    assert moments[0]["evidence"]["frame"][0]["metadata"]["segment_id"] == 2
