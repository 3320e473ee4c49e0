"""Encodes texts and images with a model that can compare the two, such as CLIP."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.core.encoding.text_encoder import Tokens, checked_vectors
from deployments.core.encoding.torch_encoder import TorchTextEncoder
from deployments.core.segments import ModelIdentity, Vectors

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_ROUTE = "image"

_USUAL_COST = 256


class TorchImageEncoder(TorchTextEncoder):
    """An ImageEncoder for every such model that sentence-transformers loads."""

    def __init__(
        self, folder: Path, identity: ModelIdentity, *, device: str = "auto", threads: int = 1
    ) -> None:
        super().__init__(folder, identity, device=device, threads=threads)
        self._image_cost = self._patches()

    def image_tokens(self, picture: "Image", digest: bytes) -> Tokens:
        """See ImageEncoder."""
        cost = (0,) * self._image_cost
        return Tokens(cost, route=IMAGE_ROUTE, text=digest.hex(), picture=picture)

    def _forward(self, tokens: Sequence[Tokens], route: str) -> Vectors:
        if route != IMAGE_ROUTE:
            return super()._forward(tokens, route)
        features = self._model.preprocess([one.picture for one in tokens])
        return checked_vectors(self._run(features), len(tokens), self.identity)

    def _patches(self) -> int:
        """Into how many the model cuts an image; each costs about as much as a token."""
        config = getattr(self._model[0].model.config, "vision_config", None)
        size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
        if isinstance(size, int) and isinstance(patch, int):
            return (size // patch) ** 2 + 1
        return _USUAL_COST
