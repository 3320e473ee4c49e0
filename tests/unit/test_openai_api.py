"""OpenAI's API over a fake encoder: with OpenAI's own client, and by hand where that can't."""

import base64
import json
import re
import threading
import time

import httpx
import numpy as np
import openai
import pytest
import uvicorn
from fastapi.testclient import TestClient

from deployments.core.encoding.batcher import Encoded, Priority
from deployments.core.errors import DeadlineExceeded, NotReady, Overloaded, ServiceError
from deployments.core.settings import Settings
from deployments.rest.application import create_app
from tests.fakes import FakeTextEncoder

MODEL = "sentence-transformers/fake"
TEXTS = ["RSI indicator measures momentum", "support", "support and resistance levels"]


class FakeBackend:
    """Encodes with the fake encoder and keeps what it was asked; raises `error` if it has one.

    A query's vectors are the opposite of a document's.
    """

    def __init__(self):
        self.encoder = FakeTextEncoder(dimension=8, max_tokens=6)
        self.asked = []
        self.error = None

    async def encode(self, texts, kind, priority, model):
        assert model == "fake"
        self.asked.append((list(texts), kind, priority))
        if self.error is not None:
            raise self.error
        tokens = self.encoder.tokenize(texts, kind)
        vectors = self.encoder.encode(tokens) * (-1 if kind == "query" else 1)
        return Encoded(
            vectors, tuple(one.truncated for one in tokens), tuple(len(one.ids) for one in tokens)
        )

    async def models(self):
        if isinstance(self.error, NotReady):
            raise self.error
        return [self.encoder.identity]


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def app(backend):
    settings = Settings(
        embeddings_max_segments=20, embeddings_max_text_chars=100, embeddings_max_body_bytes=4096
    )
    return create_app(backend, settings)


@pytest.fixture
def web(app):
    """A client for requests that OpenAI's wouldn't send."""
    with TestClient(app, "http://localhost", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def url(app):
    """The app, served over a socket."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def assert_error(response, status, kind, code, param=None, part=""):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == (kind, code, param)
    assert part in error["message"]
    assert "Traceback" not in response.text


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}])
def test_openai_s_client_gets_the_vectors(client, backend, options):
    # Without `encoding_format`, the client asks for base64 and decodes it.
    answer = client.embeddings.create(model="fake", input=TEXTS, user="somebody", **options)
    vectors = np.array([one.embedding for one in answer.data])
    assert np.array_equal(vectors.astype(np.float32), backend.encoder.vectors_of(TEXTS))
    assert [one.index for one in answer.data] == [0, 1, 2]
    assert {one.object for one in answer.data} == {"embedding"}
    assert (answer.object, answer.model) == ("list", "fake")
    assert backend.asked == [(TEXTS, "document", Priority.QUERY)]


def test_base64_as_openai_s_client_hands_it_through(client, backend):
    answer = client.embeddings.create(model="fake", input=TEXTS[0], encoding_format="base64")
    (expected,) = backend.encoder.vectors_of(TEXTS[:1])
    assert base64.b64decode(answer.data[0].embedding) == expected.astype("<f4").tobytes()


def test_usage_counts_the_tokens_that_were_encoded(client):
    # The fake's tokens are words and one more for each text; its limit is 6.
    answer = client.embeddings.create(model="fake", input=["a b c", "word " * 20])
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (4 + 6, 4 + 6)


def test_input_type_chooses_the_prompt(client, backend):
    answer = client.embeddings.create(
        model="fake", input="support", extra_body={"input_type": "query"}
    )
    (expected,) = -backend.encoder.vectors_of(["support"])
    assert np.array_equal(np.float32(answer.data[0].embedding), expected)
    assert backend.asked == [(["support"], "query", Priority.QUERY)]


@pytest.mark.parametrize(("count", "priority"), [(8, Priority.QUERY), (9, Priority.BULK)])
def test_long_lists_are_bulk(client, backend, count, priority):
    client.embeddings.create(model="fake", input=[f"text {i}" for i in range(count)])
    assert backend.asked[0][2] is priority


def test_models(client, backend):
    (listed,) = client.models.list().data
    for model in (listed, client.models.retrieve("fake"), client.models.retrieve(MODEL)):
        assert model.to_dict() == {
            "id": "fake",
            "object": "model",
            "created": 0,
            "owned_by": "embeddings-service",
            "embedding_dimension": 8,
            "fingerprint": backend.encoder.identity.fingerprint,
        }
    with pytest.raises(openai.NotFoundError, match="'fake' is") as caught:
        client.models.retrieve("text-embedding-3-small")
    assert caught.value.code == "model_not_found"


def test_the_model_s_own_dimensions_and_its_organisation_are_no_error(client):
    answer = client.embeddings.create(model=MODEL, input="x", dimensions=8)
    assert (answer.model, len(answer.data[0].embedding)) == ("fake", 8)


@pytest.mark.parametrize(
    ("changes", "error", "code", "param"),
    [
        ({"model": "text-embedding-3-small"}, openai.NotFoundError, "model_not_found", "model"),
        ({"dimensions": 4}, openai.BadRequestError, "invalid_input", "dimensions"),
        ({"input": [1, 2, 3]}, openai.BadRequestError, "token_ids", "input"),
        ({"input": [[1, 2], [3]]}, openai.BadRequestError, "token_ids", "input"),
        ({"input": ""}, openai.BadRequestError, "empty_text", "input"),
        ({"input": []}, openai.BadRequestError, "empty_list", "input"),
    ],
)
def test_openai_s_client_raises_its_own_errors(client, backend, changes, error, code, param):
    with pytest.raises(error) as caught:
        client.embeddings.create(**{"model": "fake", "input": "text"} | changes)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.type == "invalid_request_error"
    assert backend.asked == []


def test_openai_s_client_waits_and_tries_again_when_there_is_too_much_to_do(url, backend):
    backend.error = Overloaded("full")
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            client.embeddings.create(model="fake", input="text")
        assert caught.value.code == "overloaded"
        assert caught.value.response.headers["retry-after"] == "1"
    begun = time.monotonic()
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=1) as client,
        pytest.raises(openai.RateLimitError),
    ):
        client.embeddings.create(model="fake", input="text")
    assert time.monotonic() - begun >= 1
    assert len(backend.asked) == 3


async def test_openai_s_asynchronous_client(url, backend):
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        answer = await client.embeddings.create(model="fake", input=TEXTS)
    vectors = np.float32([one.embedding for one in answer.data])
    assert np.array_equal(vectors, backend.encoder.vectors_of(TEXTS))


def test_the_answer_byte_by_byte(web, backend):
    response = web.post("/v1/embeddings", json={"model": "fake", "input": "support"})
    (vector,) = backend.encoder.vectors_of(["support"])
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": 0,
                "embedding": [json.loads(str(value)) for value in vector],
            }
        ],
        "model": "fake",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }


@pytest.mark.parametrize(
    ("body", "code", "param", "part"),
    [
        ({"input": "x"}, "missing", "model", "model"),
        ({"model": "fake"}, "missing", "input", "input"),
        ({"model": "fake", "input": None}, "input_type", "input", "list of strings"),
        ({"model": "fake", "input": 5}, "input_type", "input", "list of strings"),
        ({"model": "fake", "input": {"a": 1}}, "input_type", "input", "list of strings"),
        ({"model": "fake", "input": ["a", 5]}, "token_ids", "input", "strings"),
        ({"model": "fake", "input": ["a", None]}, "string_type", "input", "input.1"),
        ({"model": "fake", "input": ["a", " \n"]}, "empty_text", "input", "input.1"),
        ({"model": "fake", "input": "a\x00b"}, "null_character", "input", "null"),
        ({"model": "fake", "input": ["a"] * 21}, "invalid_input", "input", "at most 20"),
        ({"model": "fake", "input": ["a", "x" * 101]}, "invalid_input", "input", "text 1 has 101"),
        ({"model": "fake", "input": "x", "encoding_format": "hex"},
         "literal_error", "encoding_format", "base64"),
        ({"model": "fake", "input": "x", "input_type": "passage"},
         "literal_error", "input_type", "document"),
        ({"model": "fake", "input": "x", "dimensions": 0}, "invalid_input", "dimensions", "is 0"),
        ({"model": "fake", "input": "x", "dimensions": "few"}, "int_parsing", "dimensions", ""),
        ({"model": "m" * 1025, "input": "x"}, "string_too_long", "model", "1024"),
        ([], "model_attributes_type", None, "body"),
    ],
)  # fmt: skip
def test_wrong_requests(web, backend, body, code, param, part):
    response = web.post("/v1/embeddings", json=body)
    assert_error(response, 400, "invalid_request_error", code, param, part)
    assert backend.asked == []


def test_a_body_that_is_not_json(web):
    response = web.post(
        "/v1/embeddings", content=b'{"model": ', headers={"Content-Type": "application/json"}
    )
    assert_error(response, 400, "invalid_request_error", "json_invalid", None, "JSON")


def test_a_body_over_the_limit(web, backend):
    body = {"model": "fake", "input": "x", "user": "x" * 5000}
    response = web.post("/v1/embeddings", json=body)
    assert_error(response, 413, "invalid_request_error", "body_too_large", None, "4096")
    assert backend.asked == []


@pytest.mark.parametrize("unused", [{"user": 7}, {"user": {"id": 1}}, {"user": None}])
def test_what_is_not_used_may_be_anything(web, unused):
    body = {"model": "fake", "input": "x", "encoding_format": None} | unused
    response = web.post("/v1/embeddings", json=body)
    assert response.status_code == 200
    assert len(response.json()["data"][0]["embedding"]) == 8


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/", "/v1", "/v1/embedding"])
def test_unknown_routes(web, path):
    response = web.post(path, json={})
    assert_error(response, 404, "invalid_request_error", "not_found", None, f"POST {path}")


def test_a_wrong_method(web):
    response = web.get("/v1/embeddings")
    assert_error(response, 405, "invalid_request_error", "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "retry_after"),
    [
        (Overloaded("full"), 429, "rate_limit_error", "overloaded", "1"),
        (NotReady("starting"), 503, "server_error", "not_ready", "2"),
        (DeadlineExceeded("slow"), 503, "server_error", "deadline_exceeded", "2"),
        (ServiceError("odd"), 500, "server_error", "internal_error", None),
        (RuntimeError("a secret"), 500, "server_error", "internal_error", None),
    ],
)
def test_errors_of_the_backend(web, backend, error, status, kind, code, retry_after):
    backend.error = error
    response = web.post("/v1/embeddings", json={"model": "fake", "input": "x"})
    assert_error(response, status, kind, code)
    assert response.headers.get("retry-after") == retry_after
    assert "secret" not in response.text


def test_an_unexpected_error_is_logged_with_its_reason(web, backend, caplog):
    backend.error = RuntimeError("the reason")
    web.post("/v1/embeddings", json={"model": "fake", "input": "x"})
    assert any("the reason" in str(record.exc_info) for record in caplog.records)


def test_other_routes_keep_their_errors(web):
    response = web.get("/nowhere")
    assert response.headers["content-type"] == "application/problem+json"


def test_the_documentation(web):
    document = web.get("/openapi.json").json()
    create = document["paths"]["/v1/embeddings"]["post"]
    assert set(create["responses"]) == {
        "200",
        "400",
        "404",
        "408",
        "413",
        "429",
        "503",
        "default",
    }
    for status, response in create["responses"].items():
        (schema,) = [content["schema"]["$ref"] for content in response["content"].values()]
        expected = "EmbeddingsResponse" if status == "200" else "OpenAIErrorResponse"
        assert schema == f"#/components/schemas/{expected}"
    schemas = document["components"]["schemas"]
    assert schemas["EmbeddingsRequest"]["examples"]
    assert schemas["EmbeddingsRequest"]["properties"]["input"]["anyOf"][0] == {"type": "string"}
    for reference in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert reference in schemas
    for path in ("/v1/models", "/v1/models/{model}"):
        assert "422" not in document["paths"][path]["get"]["responses"]


def test_httpx_by_hand_over_the_socket(url, backend):
    response = httpx.post(f"{url}/embeddings", json={"model": "fake", "input": ["a", "b"]})
    vectors = np.float32([one["embedding"] for one in response.json()["data"]])
    assert np.array_equal(vectors, backend.encoder.vectors_of(["a", "b"]))
