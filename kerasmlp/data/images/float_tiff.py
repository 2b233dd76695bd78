"""TIFF files of floats in three channels, or of 64 bits: what Pillow has no mode for."""

import io
from collections.abc import Callable

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_WIDTH, _HEIGHT, _PHOTOMETRIC, _SAMPLE_FORMAT = 256, 257, 262, 339
_BITS, _SAMPLES = 258, 277
_FLOATS = 3
_MORE_BYTES = 8  # than twice the numbers, per pixel: of its 8 bits


def read_float_tiff(
    data: bytes, check_size: Callable[[int, int, int], None]
) -> tuple[np.ndarray, bool]:
    """Reads the values as they are, by OpenCV.

    Args:
        check_size: Called with width, height and the bytes of memory that each pixel
            takes, before anything is decoded; may raise.

    Returns:
        Shape `(height, width)` or `(height, width, 3)`, red first; and whether 0 is white.

    Raises:
        OSError: if it is something else, damaged, or OpenCV is not installed.
    """
    directory = ImageFileDirectory_v2(data[:8])
    file = io.BytesIO(data)
    file.seek(directory.next)
    directory.load(file)
    if set(directory.get(_SAMPLE_FORMAT, ())) != {_FLOATS}:
        raise OSError("not of floats")
    bits = max(directory[_BITS]) * max(directory.get(_SAMPLES, 1), len(directory[_BITS]))
    check_size(directory[_WIDTH], directory[_HEIGHT], bits // 4 + _MORE_BYTES)
    try:
        import cv2
    except ImportError as error:
        raise OSError(f"{error}") from None
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise OSError(f"{error}") from None
    if values is None or values.shape[2:] not in ((), (3,)):
        raise OSError("damaged, or of other channels")
    values = values if values.ndim == 2 else values[..., ::-1]
    return values, directory.get(_PHOTOMETRIC) == 0
