"""Images out of bytes that nobody vouches for."""

import io
import math
from typing import TYPE_CHECKING

from deployments.core.errors import InvalidInput

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

KEPT_PIXELS = 4_000_000
"""Larger images are halved, or more, when they are read: models see a few hundred rows of them."""


def decoded(data: bytes, max_pixels: int) -> "Image":
    """The image in RGB, upright if its camera noted how it was held; the first one of several.

    Raises InvalidInput that begins with what is wrong, for what is no whole image of FORMATS or has
    more than `max_pixels`, before these take up memory.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        file = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = file.size
        if width * height > max_pixels:
            raise InvalidInput(_too_large(f"{width} x {height} pixels", max_pixels))
        image = _upright(file).convert("RGB")
    except InvalidInput:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidInput(_too_large("too many pixels", max_pixels)) from None
    except UnidentifiedImageError:
        raise InvalidInput(f"is no image of the formats {', '.join(FORMATS)}") from None
    except Exception as error:  # of any kind, by what its formats' readers meet
        raise InvalidInput(f"can't be read as an image: {error}") from error
    if width * height > KEPT_PIXELS:
        image = image.reduce(math.ceil(math.sqrt(width * height / KEPT_PIXELS)))
    return image


def _upright(file: "Image") -> "Image":
    """The image turned as its camera noted, in EXIF, that it was held."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(file)
    except Exception:  # notes that can't be read are no reason to refuse the image
        return file


def _too_large(size: str, max_pixels: int) -> str:
    return f"has {size}; at most {max_pixels} (EMBEDDINGS_MAX_IMAGE_PIXELS) are allowed"
