"""The Index names a model as the Encoder does, so that vectors of two precisions never mix."""

import pytest

from deployments import index
from deployments.core.encoding.text_encoder import load_text_encoder
from deployments.core.errors import StoreMismatch
from deployments.core.settings import Settings
from tests.fakes import write_tiny_model


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "log_as_serve", lambda: None)
    model = write_tiny_model(tmp_path / "tiny")

    def make(precision):
        return Settings(
            embedding_model=str(model),
            embedding_device="cpu",
            embedding_backend="onnx",
            embedding_precision=precision,
            faiss_index_dir=tmp_path / "index",
            embeddings_cache_dir=tmp_path / "cache",
        )

    return make


@pytest.mark.parametrize("precision", ["float32", "int8"])
async def test_index_and_encoder_agree_on_the_model(precision, settings):
    made = settings(precision)
    opened = index.Index(made)
    stats = await opened.stats()
    opened.close()
    encoder = load_text_encoder(
        made.embedding_model,
        precision=made.embedding_precision,
        threads=1,
        cache_dir=made.embeddings_cache_dir,
    )
    assert set(stats.models.values()) == {encoder.identity}


async def test_a_folder_of_one_precision_is_not_opened_with_another(settings):
    index.Index(settings("float32")).close()
    with pytest.raises(StoreMismatch, match="the EMBEDDING_PRECISION that made them"):
        index.Index(settings("int8"))
