"""From the bytes of an image file to pixels of one size and one number of channels."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps

# what Pillow was seen to raise on damaged files
_DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError,
    MemoryError, OverflowError, RuntimeError, NotImplementedError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
_GRAY_MODES = ("1", "L", "LA")


def decode_image(data: bytes, *, size: int | None = None, gray: bool = False) -> np.ndarray | None:
    """Decodes an image, or returns None where it is damaged.

    Args:
        data: Of a file of any format that Pillow knows.
        size: Sides to crop (the longer one, at both ends) and scale to; None leaves them.
        gray: One channel instead of three. A grey image has one anyway.

    Returns:
        Shape `(height, width, channels)`, uint8.

    Example:

    >>> file = io.BytesIO()
    >>> Image.new("RGB", (40, 30)).save(file, "png")
    >>> decode_image(file.getvalue()).shape, decode_image(file.getvalue()[:50])
    ((30, 40, 3), None)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of large images
            with Image.open(io.BytesIO(data)) as image:
                image = ImageOps.exif_transpose(image)
                image = image.convert("L" if gray or image.mode in _GRAY_MODES else "RGB")
            if size is not None and image.size != (size, size):
                image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
            pixels = np.asarray(image)
    except _DAMAGE:
        return None
    return pixels.reshape(*pixels.shape[:2], -1)
