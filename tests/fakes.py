"""Stand-ins for parts that are slow or can't be steered: an encoder, a service, small models."""

import asyncio
import json
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deployments.backfill.destination import Postponed, Refused
from deployments.core.encoding.text_encoder import TextKind, Tokens
from deployments.core.errors import ModelError
from deployments.core.segments import ModelIdentity, Segment, Upsert, UpsertResult, Vectors


class FakeTextEncoder:
    """A TextEncoder whose tokens are words and whose vectors depend on the tokens only.

    A text with the word "poison" makes its whole batch fail. `batches` holds what was encoded.
    """

    backend = "fake"
    device = "cpu"

    def __init__(self, dimension: int = 8, max_tokens: int = 64) -> None:
        self.identity = ModelIdentity("fake", "fa" * 32, dimension)
        self.max_tokens = max_tokens
        self.batches: list[list[Tokens]] = []

    def tokenize(self, texts: Sequence[str], kind: TextKind) -> list[Tokens]:
        rows = [[1, *(zlib.crc32(word.encode()) for word in text.split())] for text in texts]
        return [Tokens(tuple(row[: self.max_tokens]), len(row) > self.max_tokens) for row in rows]

    def encode(self, tokens: Sequence[Tokens]) -> Vectors:
        self.batches.append(list(tokens))
        if any(zlib.crc32(b"poison") in one.ids for one in tokens):
            raise ModelError("poisoned")
        return np.array([self.vector_of(one) for one in tokens], np.float32)

    def vector_of(self, tokens: Tokens) -> Vectors:
        """The vector that `encode` makes of these tokens, (dimension,)."""
        random = np.random.default_rng(zlib.crc32(repr(tokens.key).encode()))
        vector = random.standard_normal(self.identity.dimension)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def vectors_of(self, texts: Sequence[str]) -> Vectors:
        """The vectors of texts, (len(texts), dimension)."""
        rows = [self.vector_of(one) for one in self.tokenize(texts, "document")]
        return np.array(rows, np.float32).reshape(len(texts), self.identity.dimension)


class HeldTextEncoder(FakeTextEncoder):
    """A FakeTextEncoder that stops in each `encode` until the test lets it go on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._begun = threading.Semaphore(0)
        self._may_end = threading.Semaphore(0)

    def encode(self, tokens: Sequence[Tokens]) -> Vectors:
        self._begun.release()
        if not self._may_end.acquire(timeout=30):
            raise AssertionError("the test never let this batch end")
        return super().encode(tokens)

    def wait_until_begun(self) -> None:
        """Block until one more `encode` has begun."""
        if not self._begun.acquire(timeout=30):
            raise AssertionError("no batch began")

    def let_end(self, batches: int = 1) -> None:
        """Let so many calls of `encode` end, now or when they come."""
        self._may_end.release(batches)


def write_tiny_model(
    folder: Path,
    *,
    prompts: dict[str, str] | None = None,
    dense: int | None = None,
    normalize: bool = True,
    pooling: str = "mean",
    max_tokens: int = 32,
    include_prompt: bool = True,
    seed: int = 0,
) -> Path:
    """Write a sentence-transformers model with random weights: two BERT layers of 32 values.

    `dense` adds a Dense layer with so many outputs. Equal arguments write equal weights.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{x}" for x in letters)]
    words += ["query", "passage", ":", ".", ",", "the", "market", "opens", "higher", "today"]
    base = folder.with_name(f"{folder.name}-transformer")
    base.mkdir(parents=True)
    (base / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab=str(base / "vocab.txt"), model_max_length=max_tokens).save_pretrained(
        base
    )
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(base)
    modules: list[Any] = [
        Transformer(str(base), max_seq_length=max_tokens),
        Pooling(32, pooling_mode=pooling, include_prompt=include_prompt),
    ]
    if dense is not None:
        modules.append(Dense(32, dense))
    if normalize:
        modules.append(Normalize())
    model = SentenceTransformer(modules=modules, prompts=prompts, device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


def write_tiny_clip(folder: Path, *, seed: int = 0) -> Path:
    """Write a sentence-transformers model of texts and images, with random weights.

    It takes images of 32 x 32 pixels and makes vectors of 24 numbers.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{x}</w>" for x in letters)]
    base = folder.with_name(f"{folder.name}-transformer")
    base.mkdir(parents=True)
    vocabulary, merges = base / "vocab.json", base / "merges.txt"
    vocabulary.write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    merges.write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizerFast(str(vocabulary), str(merges), model_max_length=32)
    of_images = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    CLIPProcessor(of_images, tokenizer).save_pretrained(base)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "projection_dim": 24, "initializer_range": 0.5}
    of_texts = {"vocab_size": len(words), "max_position_embeddings": 32}
    of_texts |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(
        text_config={**sizes, **of_texts},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    CLIPModel(config).save_pretrained(base)
    model = SentenceTransformer(modules=[Transformer(str(base))], device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Change some values of a JSON object in a file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


class FakeService:
    """A backfill's Destination that stores in a dict and remembers which calls it had.

    The first calls end as `postponements` say; a text with "poison" is refused. `encoded` counts
    the texts that no stored segment had before. With `hold`, a call waits until it is set.
    """

    def __init__(self, postponements: Sequence[float] = (), most: int = 2000) -> None:
        self.stored: dict[tuple[str, str], Segment] = {}
        self.calls: list[Upsert] = []
        self.encoded = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.hold: asyncio.Event | None = None
        self._postponements = list(postponements)
        self._most = most

    async def embed(self, upsert: Upsert) -> UpsertResult:
        self.calls.append(upsert)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await (asyncio.sleep(0) if self.hold is None else self.hold.wait())
            if self._postponements:
                raise Postponed("too much waits", self._postponements.pop(0))
            return self._apply(upsert)
        finally:
            self.in_flight -= 1

    def _apply(self, upsert: Upsert) -> UpsertResult:
        names = [str(segment.id) for segment in upsert.segments]
        assert len(set(names)) == len(names) > 0
        if len(names) > self._most:
            raise Refused(f"the request has {len(names)} segments")
        if any("poison" in segment.text for segment in upsert.segments):
            raise Refused("a text is poisoned")
        media_item, changed, removed = str(upsert.media_item_id), 0, 0
        for name, segment in zip(names, upsert.segments, strict=True):
            old = self.stored.get((media_item, name))
            changed += old != segment
            self.encoded += old is None or old.text != segment.text
            self.stored[media_item, name] = segment
        if upsert.replace:
            gone = [k for k in self.stored if k[0] == media_item and k[1] not in names]
            removed = len(gone)
            for key in gone:
                del self.stored[key]
        return UpsertResult(stored=len(names), changed=changed, removed=removed)

    def texts(self) -> dict[tuple[str, str], str]:
        """What is stored, by media item and id."""
        return {key: segment.text for key, segment in self.stored.items()}
