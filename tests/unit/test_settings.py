import pytest

from deployments.core.errors import SettingsError
from deployments.core.segments import EmbeddingType, IndexType
from deployments.core.settings import Settings


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_args_win_over_the_environment_and_the_environment_over_the_defaults(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBEDDING_DEVICE", "cpu")
    monkeypatch.setenv("FAISS_INDEX_DIR", str(tmp_path / "from_environment"))
    settings = Settings.load({"faiss_index_dir": str(tmp_path / "from_args")})
    assert settings.faiss_index_dir == tmp_path / "from_args"
    assert settings.embedding_device == "cpu"
    assert settings.embedding_model == "all-MiniLM-L6-v2"


def test_the_folder_is_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Settings.load().faiss_index_dir == tmp_path / "data/processed/faiss"


def test_each_index_can_have_a_type_of_its_own(monkeypatch):
    assert set(Settings.load().index_types().values()) == {IndexType.AUTO}
    monkeypatch.setenv("FAISS_INDEX_TYPE", "rabitq")
    monkeypatch.setenv("FAISS_INDEX_TYPE_CLIP", "flat")
    assert Settings.load({"faiss_index_type_frame": "hnsw"}).index_types() == {
        EmbeddingType.TRANSCRIPT: IndexType.RABITQ,
        EmbeddingType.FRAME: IndexType.HNSW,
        EmbeddingType.CLIP: IndexType.FLAT,
    }


def test_each_index_can_have_a_model_of_its_own(monkeypatch):
    assert set(Settings.load().models().values()) == {"all-MiniLM-L6-v2"}
    monkeypatch.setenv("EMBEDDING_MODEL", "all-MiniLM-L12-v2")
    monkeypatch.setenv("EMBEDDING_MODEL_FRAME", "external:clip-ViT-B-32:512")
    assert Settings.load({"embedding_model_clip": "external:8"}).models() == {
        EmbeddingType.TRANSCRIPT: "all-MiniLM-L12-v2",
        EmbeddingType.FRAME: "external:clip-ViT-B-32:512",
        EmbeddingType.CLIP: "external:8",
    }


@pytest.mark.parametrize(
    "name", ["external:", "external:0", "external:x", "external:a b:8", "external:4097"]
)
def test_a_model_elsewhere_has_a_dimension(name):
    with pytest.raises(SettingsError, match=r"external:512 or external:NAME:512.* 1 to 4096"):
        Settings.load({"embedding_model_frame": name})


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("EMBEDDING_MODEL", "")
    assert Settings.load().embedding_model == "all-MiniLM-L6-v2"


def test_variables_that_others_set_are_left_alone(monkeypatch):
    monkeypatch.setenv("EMBEDDINGS_SERVICE_URL", "http://localhost:8004")
    monkeypatch.setenv("EMBEDDINGS_SERVICE_PORT_8004_TCP", "tcp://10.0.0.1:8004")
    Settings.load()


@pytest.mark.parametrize(
    ("args", "environment", "expected"),
    [
        ({"embeding_model": "x"}, {}, ["embeding_model", "from args", "embedding_model?"]),
        ({"zzz": 1}, {}, ["zzz", "known: embedding_model"]),
        ({}, {"EMBEDDING_MODLE": "x"}, ["EMBEDDING_MODLE", "environment", "EMBEDDING_MODEL?"]),
        ({}, {"EMBEDDINGS_WORKERS": "0"}, ["EMBEDDINGS_WORKERS='0'", "greater than or equal to 1"]),
        ({}, {"EMBEDDINGS_WORKERS": "two"}, ["EMBEDDINGS_WORKERS='two'", "integer"]),
        ({}, {"EMBEDDING_DEVICE": "gpu"}, ["EMBEDDING_DEVICE='gpu'", "'cpu', 'cuda'"]),
        ({}, {"FAISS_INDEX_RESOURCE": "a b"}, ["FAISS_INDEX_RESOURCE='a b'", "match pattern"]),
        ({}, {"EMBEDDING_MODEL": "  "}, ["EMBEDDING_MODEL='  '", "at least 1 character"]),
        ({"embeddings_timeout_s": "nan"}, {}, ["embeddings_timeout_s='nan'"]),
        ({"faiss_index_dir": 5}, {}, ["faiss_index_dir=5"]),
        ({}, {"FAISS_INDEX_TYPE": "HNSW"}, ["FAISS_INDEX_TYPE='HNSW'", "'flat', 'hnsw'"]),
        ({"faiss_index_type_clip": "x"}, {}, ["faiss_index_type_clip='x'", "'rabitq' or 'pq'"]),
        ({}, {"FAISS_INDEX_TYPE_FRAMES": "pq"}, ["not a setting", "FAISS_INDEX_TYPE_FRAME?"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(
    monkeypatch, args, environment, expected
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        Settings.load(args)
    for part in expected:
        assert part in str(raised.value)


def test_all_wrong_settings_are_named_at_once(monkeypatch):
    monkeypatch.setenv("EMBEDDINGS_WORKERS", "0")
    with pytest.raises(SettingsError) as raised:
        Settings.load({"embedding_device": "gpu", "nonsense": 1})
    for name in ("EMBEDDINGS_WORKERS", "embedding_device", "nonsense"):
        assert name in str(raised.value)
