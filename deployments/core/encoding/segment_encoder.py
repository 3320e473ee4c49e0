"""Makes the vectors that segments lack, of their texts or of their images."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import TypeVar

import numpy as np

from deployments.core.configured_models import is_external
from deployments.core.encoding.batcher import Encoded, Priority
from deployments.core.encoding.loaded_models import LoadedModels
from deployments.core.encoding.query_vectors import refuse_text
from deployments.core.encoding.segment_images import SegmentImages, Sources
from deployments.core.encoding.text_encoder import ImageEncoder, Tokens
from deployments.core.errors import InvalidInput
from deployments.core.segments import ModelIdentity, Upsert, Vectors

IMAGES_AT_ONCE = 8
"""Of a call; so many are in memory with all their pixels."""

READING_THREADS = 2

T = TypeVar("T")


class SegmentEncoder:
    """Encodes segments with loaded models; `observe` hears how long a call waited."""

    def __init__(
        self,
        loaded: LoadedModels,
        images: SegmentImages,
        observe: Callable[[Priority, float], None],
    ) -> None:
        self._loaded = loaded
        self._images = images
        self._observe = observe
        self._reading = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="images")

    async def prepare(self, upsert: Upsert, model: ModelIdentity) -> tuple[Upsert, Sources]:
        """The upsert as the index has to see it, and where the images are that it is made of.

        Raises InvalidInput for a segment of which the model can't make a vector.
        """
        sources: Sources = {}
        if not is_external(model.name) and self._image_encoder(model) is not None:
            upsert, sources = await self._in_thread(lambda: self._images.found_in(upsert))
        for position, segment in enumerate(upsert.segments):
            if segment.embedding is not None or position in sources:
                continue
            if is_external(model.name):
                raise refuse_text(upsert.embedding_type, model, f"segment {position}")
            if not segment.text.strip():
                raise InvalidInput(
                    f"segment {position} has no text, and nothing else that the model "
                    f"{model.name} of the {upsert.embedding_type} index makes a vector of"
                )
        return upsert, sources

    async def complete(
        self, upsert: Upsert, missing: Sequence[int], sources: Sources, model: ModelIdentity
    ) -> Upsert:
        """The upsert with the vectors of the segments at `missing` added to those it has."""
        images = [position for position in missing if position in sources]
        texts = [position for position in missing if position not in sources]
        encoded = await self.encode(
            [upsert.segments[position].text for position in texts], model.name
        )
        parts = [encoded.vectors]
        if images:
            parts += await self._encode_images(upsert, images, sources, model)
        if upsert.vectors is not None:
            parts.insert(0, upsert.vectors)
        truncated = (
            position for position, cut in zip(texts, encoded.truncated, strict=True) if cut
        )
        return replace(
            upsert,
            vectors=np.concatenate(parts),
            vector_positions=(*upsert.vector_positions, *texts, *images),
            truncated_positions=(*upsert.truncated_positions, *truncated),
        )

    async def encode(self, texts: Sequence[str], model: str) -> Encoded:
        """The vectors of texts as documents, behind all queries."""
        started = monotonic()
        encoded = await self._loaded.use(model).batcher.encode(texts, "document", Priority.BULK)
        self._observe(Priority.BULK, monotonic() - started)
        return encoded

    async def _encode_images(
        self, upsert: Upsert, positions: Sequence[int], sources: Sources, model: ModelIdentity
    ) -> list[Vectors]:
        batcher, found = self._loaded.use(model.name).batcher, []
        for start in range(0, len(positions), IMAGES_AT_ONCE):
            part = positions[start : start + IMAGES_AT_ONCE]
            read = partial(self._read, upsert, part, sources, model)
            tokens = await self._in_thread(read)
            started = monotonic()
            found.append((await batcher.encode_images(tokens, Priority.BULK)).vectors)
            self._observe(Priority.BULK, monotonic() - started)
        return found

    def _read(
        self, upsert: Upsert, positions: Sequence[int], sources: Sources, model: ModelIdentity
    ) -> list[Tokens]:
        encoder = self._image_encoder(model)
        assert encoder is not None
        tokens = []
        for position in positions:
            digest = upsert.segments[position].image_digest
            assert digest is not None
            picture = self._images.picture(position, sources[position], digest)
            tokens.append(encoder.image_tokens(picture, digest))
        return tokens

    def _image_encoder(self, model: ModelIdentity) -> ImageEncoder | None:
        encoder = self._loaded.use(model.name).batcher.encoder
        return encoder if isinstance(encoder, ImageEncoder) else None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, work)
