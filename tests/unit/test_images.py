"""Segments that are embedded by their images, and images that nobody vouches for."""

import base64
import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sentence_transformers import SentenceTransformer
from whole_service import WholeService, whole_service

from deployments.core.configured_models import read_models
from deployments.core.encoding import pictures
from deployments.core.encoding.image_files import read_image_file
from deployments.core.encoding.model_identity import read_identity, takes_images
from deployments.core.encoding.pictures import decoded
from deployments.core.encoding.text_encoder import load_text_encoder
from deployments.core.encoding.torch_image_encoder import TorchImageEncoder
from deployments.core.errors import InvalidInput
from deployments.core.segments import EmbeddingType
from tests.fakes import edit_json, write_tiny_clip, write_tiny_model

MOST_BYTES = 100_000
MOST_PIXELS = 40_000


def picture(seed: int, width: int = 60, height: int = 40) -> Image.Image:
    """Large patches of colours: what CLIP sees of it differs from what it sees of others."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST)


def png(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def bomb(side: int) -> bytes:
    """A PNG of few bytes that says it has side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


HOSTILE = {
    "empty": (b"", "no image of the formats JPEG, PNG"),
    "text": (b"not an image", "no image of the formats"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image of the formats"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "no image of the formats"),
    "truncated": (png(picture(0))[:-40], "can't be read as an image"),
    "header only": (png(picture(0))[:40], ""),
    "too many pixels": (png(picture(0, 300, 200)), "has 300 x 200 pixels; at most 40000"),
    "bomb": (bomb(60_000), "at most 40000 (EMBEDDINGS_MAX_IMAGE_PIXELS)"),
    "small bomb": (bomb(8_000), "has 8000 x 8000 pixels; at most 40000"),
    "broken data": (bomb(100), "can't be read as an image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_image_is_refused(name: str) -> None:
    content, message = HOSTILE[name]
    with pytest.raises(InvalidInput) as raised:
        decoded(content, MOST_PIXELS)
    assert message in raised.value.detail


@pytest.mark.parametrize("form", pictures.FORMATS)
def test_images_of_all_formats(form: str) -> None:
    image = decoded(png(picture(1), form), MOST_PIXELS)
    assert (image.mode, image.size) == ("RGB", (60, 40))
    difference = np.asarray(image, int) - np.asarray(picture(1), int)
    assert np.abs(difference).mean() < 12


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    source = picture(1).convert("L") if mode == "I;16" else picture(1)
    assert decoded(png(source.convert(mode)), MOST_PIXELS).mode == "RGB"


def test_an_image_is_upright_however_the_camera_was_held() -> None:
    upright = picture(1, 60, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    held = upright.transpose(Image.Transpose.ROTATE_90)
    assert np.array_equal(decoded(png(held, exif=exif), MOST_PIXELS), upright)


def test_broken_notes_of_a_camera_are_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(png(picture(1), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0"))
    broken = content.replace(b"II*\0", b"\xff\xff\xff\xff")
    assert broken != content
    assert decoded(bytes(broken), MOST_PIXELS).size == (60, 40)


def test_a_large_image_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "KEPT_PIXELS", 2400)
    assert decoded(png(picture(1)), MOST_PIXELS).size == (60, 40)
    assert decoded(png(picture(1, 120, 82)), MOST_PIXELS).size == (40, 28)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with images, beside a file that isn't for the service."""
    root = tmp_path / "images"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "a.png").write_bytes(b"inside")
    (tmp_path / "secret.png").write_bytes(b"outside")
    (tmp_path / "images-too").mkdir()
    (tmp_path / "images-too" / "b.png").write_bytes(b"outside")
    (root / "link.png").symlink_to("inner/a.png")
    (root / "out.png").symlink_to("../secret.png")
    (root / "out").symlink_to("..")
    (root / "loop.png").symlink_to("loop.png")
    os.mkfifo(root / "fifo.png")
    return root


@pytest.mark.parametrize(
    "path", ["inner/a.png", "./inner/../inner/a.png", "link.png", "{root}/inner/a.png"]
)
def test_files_inside_are_read(root: Path, path: str) -> None:
    assert read_image_file(root, path.format(root=root), 6) == b"inside"


def test_the_folder_may_be_a_link_itself(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    alias = tmp_path / "alias"
    assert read_image_file(alias, "inner/a.png", 100) == b"inside"
    assert read_image_file(alias, f"{alias}/link.png", 100) == b"inside"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../secret.png", "leads out of EMBEDDINGS_IMAGE_ROOT"),
        ("inner/../../secret.png", "leads out of"),
        ("out.png", "leads out of"),
        ("out/secret.png", "leads out of"),
        ("/etc/passwd", "leads out of"),
        ("{root}-too/b.png", "leads out of"),
        ("../none.png", "leads out of"),
        ("none.png", "names no file under"),
        ("inner/a.png/b.png", "names no file under"),
        ("loop.png", "names no file under"),
        ("inner", "is no regular file"),
        (".", "is EMBEDDINGS_IMAGE_ROOT itself"),
        ("fifo.png", "is no regular file"),
        ("x" * 5000, "can't be read"),
    ],
)
def test_everything_else_is_refused(root: Path, path: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_image_file(root, path.format(root=root), MOST_BYTES)


def test_a_file_that_is_too_large_is_refused(root: Path) -> None:
    with pytest.raises(InvalidInput, match=r"more than 5 bytes \(EMBEDDINGS_MAX_IMAGE_BYTES\)"):
        read_image_file(root, "inner/a.png", 5)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "clip")


def test_which_models_take_images(clip: Path, tmp_path: Path) -> None:
    assert takes_images(clip)
    assert not takes_images(write_tiny_model(tmp_path / "texts"))


def test_the_identity_of_a_model_of_images(clip: Path, tmp_path: Path) -> None:
    identity = read_identity("clip", clip)
    assert identity.dimension == 24
    other = write_tiny_clip(tmp_path / "other", seed=1)
    assert read_identity("clip", other).fingerprint != identity.fingerprint
    same = write_tiny_clip(tmp_path / "same")
    assert read_identity("clip", same) == identity
    mean = {"image_mean": [0.1, 0.2, 0.3]}
    edit_json(same / "processor_config.json", image_processor=mean)
    assert read_identity("clip", same).fingerprint != identity.fingerprint
    by_type = dict.fromkeys(EmbeddingType, str(clip))
    assert read_models(by_type, "int8") == read_models(by_type, "float32")


def test_texts_and_images_get_the_vectors_of_sentence_transformers(clip: Path) -> None:
    encoder = load_text_encoder(str(clip), device="cpu")
    assert isinstance(encoder, TorchImageEncoder)
    images, texts = [picture(seed) for seed in range(3)], ["a chart", "b"]
    tokens = [encoder.image_tokens(each, bytes([i])) for i, each in enumerate(images)]
    assert len({one.key for one in tokens}) == 3
    assert len(tokens[0]) == 17
    mixed = [tokens[0], *encoder.tokenize(texts, "document"), *tokens[1:]]
    found = encoder.encode(mixed)
    reference = SentenceTransformer(str(clip), device="cpu")
    expected = [
        *reference.encode(images[:1], normalize_embeddings=True),
        *reference.encode(texts, normalize_embeddings=True),
        *reference.encode(images[1:], normalize_embeddings=True),
    ]
    assert np.allclose(found, expected, atol=1e-5)
    assert abs(found[0] @ found[3]) < 0.999


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for seed in range(12):
        (folder / f"{seed}.png").write_bytes(png(picture(seed)))
    return folder


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, clip: Path, images: Path) -> WholeService:
    """Frames by a model of images, everything else by the default one."""
    chosen = {
        "embedding_model_frame": str(clip),
        "embeddings_image_root": images,
        "embeddings_max_image_bytes": MOST_BYTES,
        "embeddings_max_image_pixels": MOST_PIXELS,
    }
    with whole_service(tmp_path_factory.mktemp("service"), **chosen) as running:
        yield running


@pytest.fixture(scope="module")
def reference(clip: Path) -> SentenceTransformer:
    return SentenceTransformer(str(clip), device="cpu")


def find(service: WholeService, media: str, **fields: object) -> list[dict]:
    wanted = {"embedding_type": "frame", "filter": {"media_item_id": media}, **fields}
    response = service.post("/search", wanted)
    assert response.status_code == 200, response.text
    return response.json()["results"]


def test_texts_find_the_images_that_are_near(
    service: WholeService, reference: SentenceTransformer
) -> None:
    frames = [{"id": i, "timestamp": i, "image_path": f"{i}.png"} for i in range(12)]
    frames[3]["text"] = "a hammer candle"
    assert service.embed("paths", frames, kind="frame")["changed"] == 12
    assert service.embed("paths", frames, kind="frame")["changed"] == 0
    query = reference.encode_query(["market"], normalize_embeddings=True)[0]
    stored = reference.encode([picture(i) for i in range(12)], normalize_embeddings=True)
    cosines = stored @ query
    found = find(service, "paths", query="market", top_k=12)
    assert [each["metadata"]["segment_id"] for each in found] == np.argsort(-cosines).tolist()
    assert [1 - each["distance"] for each in found] == pytest.approx(
        np.sort(cosines)[::-1].tolist(), abs=1e-5
    )
    assert {each["metadata"]["image_path"] for each in found} == {f"{i}.png" for i in range(12)}
    (worded,) = find(service, "paths", query="hammer", mode="keyword")
    assert worded["metadata"]["segment_id"] == 3


def test_images_come_in_base64_too(service: WholeService, reference: SentenceTransformer) -> None:
    content = base64_of(png(picture(50), "JPEG"))
    frames = [
        {"id": 1, "image": content, "image_path": "elsewhere/1.jpg", "page": 4},
        {"id": 2, "image": f"data:image/jpeg;base64,{content}"},
        {"id": 3, "text": "market"},
    ]
    assert service.embed("base64", frames, kind="frame")["changed"] == 3
    assert service.embed("base64", frames, kind="frame")["changed"] == 0
    same = Image.open(io.BytesIO(png(picture(50), "JPEG")))
    own = reference.encode([same], normalize_embeddings=True)[0].tolist()
    first, second, third = find(service, "base64", embedding=own)
    assert [each["similarity"] for each in (first, second)] == pytest.approx([1, 1], abs=1e-5)
    assert third["metadata"]["segment_id"] == 3
    assert "image" not in first["metadata"]
    told = {name: first["metadata"][name] for name in ("image_path", "page", "text")}
    assert told == {"image_path": "elsewhere/1.jpg", "page": 4, "text": ""}
    (by_text, *_) = find(service, "base64", query="market")
    assert (by_text["metadata"]["segment_id"], by_text["similarity"]) == (3, pytest.approx(1))


def test_a_changed_image_is_encoded_again(service: WholeService, images: Path) -> None:
    path = images / "changing.png"
    frame = [{"id": 1, "image_path": "changing.png"}]
    for seed, changed in ((60, 1), (60, 0), (61, 1)):
        path.write_bytes(png(picture(seed)))
        assert service.embed("changing", frame, kind="frame")["changed"] == changed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_path": "../secret.png"}, "leads out of EMBEDDINGS_IMAGE_ROOT"),
        ({"image_path": "none.png"}, "names no file under EMBEDDINGS_IMAGE_ROOT"),
        ({"image_path": 5}, "image_path must be a string"),
        ({"image_path": ""}, "image_path must be a string"),
        ({"image": 5}, "image must be a string in base64"),
        ({"image": "%%%"}, "image is no base64"),
        ({"image": base64_of(bytes(MOST_BYTES + 1))}, "100001 bytes; at most 100000"),
        *(({"image": base64_of(content)}, message) for content, message in HOSTILE.values()),
    ],
)
def test_hostile_images_name_their_segment(
    service: WholeService, fields: dict, message: str
) -> None:
    segments = [{"id": 1, "image_path": "1.png"}, {"id": 2, **fields}]
    body = {"media_item_id": "hostile", "embedding_type": "frame", "segments": segments}
    response = service.post("/embed", body)
    assert response.status_code == 422, response.text
    assert "segment 1" in response.json()["detail"]
    assert message in response.json()["detail"]
    assert find(service, "hostile", query="x") == []


def test_with_a_model_of_texts_these_fields_are_metadata(service: WholeService) -> None:
    further = {"image": "anything", "image_path": "/anywhere"}
    service.embed("texts", [{"id": 1, "text": "a chart", **further}])
    (found,) = service.search("a chart", filter={"media_item_id": "texts"})
    assert {name: found["metadata"][name] for name in further} == further
    body = {"media_item_id": "texts", "embedding_type": "transcript"}
    response = service.post("/embed", {**body, "segments": [{"id": 1, **further}]})
    assert response.status_code == 422
    assert "segment 0 has no text" in response.json()["detail"]


def test_without_a_folder_no_path_is_read(tmp_path: Path, clip: Path) -> None:
    with whole_service(tmp_path, embedding_model=str(clip)) as service:
        body = {"media_item_id": 1, "embedding_type": "frame"}
        segments = [{"id": 1, "image_path": "1.png", "text": "a chart"}]
        response = service.post("/embed", {**body, "segments": segments})
        assert response.status_code == 422
        assert "no folder for images is set (EMBEDDINGS_IMAGE_ROOT)" in response.json()["detail"]
        assert service.get("/health").status_code == 200


def test_a_model_in_the_older_layout(clip: Path, tmp_path: Path) -> None:
    """As the published CLIP models of sentence-transformers are."""
    module = "sentence_transformers.models.CLIPModel"
    shutil.copytree(clip.with_name("clip-transformer"), tmp_path / "0_CLIPModel")
    modules = [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": module}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert takes_images(tmp_path)
    older = load_text_encoder(str(tmp_path), device="cpu")
    newer = load_text_encoder(str(clip), device="cpu")
    assert isinstance(older, TorchImageEncoder)
    assert isinstance(newer, TorchImageEncoder)
    assert older.identity.dimension == 24
    for tokens in (
        older.tokenize(["a chart", "b"], "document"),
        [older.image_tokens(picture(seed), bytes([seed])) for seed in range(2)],
    ):
        assert np.allclose(older.encode(tokens), newer.encode(tokens), atol=1e-6)
