"""The images that segments are embedded by: which they are, and their content."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.core.encoding.image_files import read_image_file
from deployments.core.encoding.pictures import decoded
from deployments.core.errors import InvalidInput, NotReady
from deployments.core.segments import Upsert

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE = "image"
IMAGE_PATH = "image_path"
DIGEST_BYTES = 16

Sources = Mapping[int, str | bytes]
"""By position of the segment: the path of its image, or its content."""


@dataclass(frozen=True, slots=True)
class SegmentImages:
    """Reads images within limits; those of paths only under `root`, and none if that is None."""

    root: Path | None
    max_bytes: int
    max_pixels: int

    def found_in(self, upsert: Upsert) -> tuple[Upsert, Sources]:
        """The upsert with each image's digest instead of an `image`, and where the images are.

        A segment with a vector of its own needs no image. Raises InvalidInput.
        """
        sources: dict[int, str | bytes] = {}
        segments = list(upsert.segments)
        for position, segment in enumerate(segments):
            metadata = {name: value for name, value in segment.metadata.items() if name != IMAGE}
            if segment.embedding is not None:
                segments[position] = replace(segment, metadata=metadata)
            elif (source := self._source(position, segment.metadata)) is not None:
                sources[position] = source
                digest = _digest(self._content(position, source))
                segments[position] = replace(segment, metadata=metadata, image_digest=digest)
        return replace(upsert, segments=tuple(segments)), sources

    def picture(self, position: int, source: str | bytes, digest: bytes) -> "Image":
        """The image of a segment. Raises InvalidInput, and NotReady if it has changed meanwhile."""
        content = self._content(position, source)
        if _digest(content) != digest:
            raise NotReady(f"the image of segment {position} was changed meanwhile; try again")
        try:
            return decoded(content, self.max_pixels)
        except InvalidInput as error:
            raise InvalidInput(f"the image of segment {position} {error.detail}") from error

    def _source(self, position: int, metadata: Mapping[str, Any]) -> str | bytes | None:
        image, path = metadata.get(IMAGE), metadata.get(IMAGE_PATH)
        if image is not None:
            return self._decoded(position, image)
        if path is None:
            return None
        if not isinstance(path, str) or not path:
            raise InvalidInput(f"segment {position}: image_path must be a string that isn't empty")
        if self.root is None:
            raise InvalidInput(
                f"segment {position} has an image_path, but no folder for images is set "
                "(EMBEDDINGS_IMAGE_ROOT); set it, or send the image itself as `image`, in base64"
            )
        return path

    def _decoded(self, position: int, image: object) -> bytes:
        if not isinstance(image, str):
            raise InvalidInput(f"segment {position}: image must be a string in base64")
        try:
            # As a browser has it: data:image/png;base64,…
            content = base64.b64decode(image.rpartition(",")[2], validate=True)
        except (binascii.Error, ValueError):
            raise InvalidInput(f"segment {position}: image is no base64") from None
        if len(content) > self.max_bytes:
            raise InvalidInput(
                f"segment {position}: image has {len(content)} bytes; at most {self.max_bytes} "
                "(EMBEDDINGS_MAX_IMAGE_BYTES) are allowed"
            )
        return content

    def _content(self, position: int, source: str | bytes) -> bytes:
        if isinstance(source, bytes):
            return source
        assert self.root is not None
        try:
            return read_image_file(self.root, source, self.max_bytes)
        except InvalidInput as error:
            raise InvalidInput(f"segment {position}: {error.detail}") from error


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=DIGEST_BYTES).digest()
