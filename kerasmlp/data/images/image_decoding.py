"""From the bytes of an image file to pixels: one decoder, for faces and for image stores."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kerasmlp.data.datasets.photos import is_heif
from kerasmlp.data.datasets.records import (
    FAILED_TO_READ,
    NO_HEIF,
    TOO_LARGE,
    TRANSPARENT,
    UNCLEAR_RANGE,
)
from kerasmlp.data.images.float_tiff import read_float_tiff
from kerasmlp.data.images.sample_bits import sample_bits, stated_bits, white_bits, zero_is_white

# what Pillow was seen to raise on damaged files
_DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError,
    MemoryError, OverflowError, RuntimeError, NotImplementedError, struct.error, zlib.error,
)  # fmt: skip
_GRAY_MODES = ("1", "L", "LA", "La")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BYTES_PER_PIXEL = 12  # that decoding was measured to take at most, but for these formats
_MORE_BYTES_PER_PIXEL = {"WEBP": 20, "JPEG2000": 26}
_BAND = 64  # rows that are copied at once
_DARKEST = 1 / 16  # of white: floats that have no lighter pixel were scaled twice


def decode_image(
    data: bytes, *, size: int | None = None, gray: bool = False
) -> tuple[np.ndarray | None, str | None]:
    """Decodes an image, or says why not.

    It is turned as its EXIF data say; what is transparent lies on white; of an
    animation the first picture is taken. Of 16 bits the upper 8 are kept, and
    floats from 0 to 1 become 0 to 255; where the range cannot be told, the
    image is not read. A file without its end is not read either, nor one that
    promises more pixels than ten times its size and 1 GiB hold.

    Args:
        data: Of a file of any format that Pillow knows, HEIC with pillow-heif.
        size: Sides to crop (the longer one, at both ends) and scale to; None leaves them.
        gray: One channel instead of three. A grey image has one anyway.

    Returns:
        Shape `(height, width, channels)`, uint8, and None; or None and the reason.

    Example:

    >>> file = io.BytesIO()
    >>> Image.new("RGB", (40, 30)).save(file, "png")
    >>> decode_image(file.getvalue())[0].shape, decode_image(file.getvalue()[:50])
    ((30, 40, 3), (None, 'failed to read image'))
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of large images
            image = _eight_bits(data)
        mode = "L" if gray or image.mode in _GRAY_MODES else "RGB"
        image = image if image.mode == mode else image.convert(mode)
        if size is not None and image.size != (size, size):
            image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
        pixels = _array_of(image)
    except _LeftOut as why:
        return None, str(why)
    except Image.DecompressionBombError:
        return None, TOO_LARGE
    except _DAMAGE:
        return None, FAILED_TO_READ
    return pixels.reshape(*pixels.shape[:2], -1), None


def as_uint8(values: np.ndarray, bits: int | None = None) -> np.ndarray | None:
    """Pixels from 0 to 255, or None where the range of the values cannot be told.

    Args:
        values: uint8; uint16, of which the upper 8 bits are kept; or floats from 0 to 1.
            Where the lightest of 16 bits has fewer than 16, or is darker than a
            sixteenth of white in floats, they may have been made with fewer bits.
        bits: That uint16 has, where it is known.

    Example:

    >>> as_uint8(np.array([0, 256, 65535], np.uint16)), as_uint8(np.array([0.0, 0.2, 1.0]))
    (array([  0,   1, 255], dtype=uint8), array([  0,  51, 255], dtype=uint8))
    >>> as_uint8(np.array([0, 16383], np.uint16)), as_uint8(np.array([0.0, 255.0]))
    (None, None)
    >>> as_uint8(np.array([0, 16383], np.uint16), bits=14)
    array([  0, 255], dtype=uint8)
    """
    if values.dtype == np.uint8:
        return values
    if not values.size:
        return None
    low, high = values.min(), values.max()
    if values.dtype == np.uint16:
        bits = bits or white_bits(int(high))
        return None if bits is None else (values >> max(bits - 8, 0)).astype(np.uint8)
    if values.dtype.kind != "f" or not (low >= 0 and _DARKEST <= high <= 1):  # also if one is NaN
        return None
    pixels = np.empty(values.shape, np.uint8)
    for i, row in enumerate(values):  # all at once would take three times the memory
        pixels[i] = np.rint(row * values.dtype.type(255))
    return pixels


def max_pixels(num_bytes: int, bytes_per_pixel: int = _BYTES_PER_PIXEL) -> int:
    """How many pixels an image file of so many bytes may promise."""
    # also OpenCV's own limit, which a user or a command may have lowered
    limit = int(os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", 1 << 28))
    memory = (1 << 30) - (1 << 24) + 10 * num_bytes  # some is not for pixels
    return min(limit, memory // bytes_per_pixel)


class _LeftOut(Exception):
    """An image that is whole, and not read; the text is the reason."""


def _eight_bits(data: bytes) -> Image.Image:
    """The upright image in a mode of 8 bits, without transparency."""
    if is_heif(data[:64]):
        _register_heif()

    def check_size(width: int, height: int, bytes_per_pixel: int) -> None:
        if width * height > max_pixels(len(data), bytes_per_pixel):
            raise _LeftOut(TOO_LARGE)

    try:
        image = Image.open(io.BytesIO(data))
        if image.format == "PNG":  # whose checksums Pillow does not compare while it decodes
            image.verify()
            image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        if not data.startswith((b"II*\0", b"MM\0*")):
            raise
        return _scaled(*read_float_tiff(data, check_size))
    bytes_per_pixel = _MORE_BYTES_PER_PIXEL.get(image.format, _BYTES_PER_PIXEL)
    check_size(image.width, image.height, bytes_per_pixel)
    kind, bits, stated = image.format, sample_bits(image), stated_bits(image, data)
    negative = zero_is_white(image)
    image.load()
    image = _upright(image)
    if image.mode.startswith(("I", "F")):
        values = _array_of(image)
        if image.mode != "F" and bits in (12, 16) and values.min() >= 0:
            bits = white_bits(int(values.max()), kind, stated)
            values = values.astype(np.uint16)
            if bits is None:
                raise _LeftOut(UNCLEAR_RANGE)
        return _scaled(values, negative, bits)
    # Pillow itself kept the upper 8 bits of colours
    if bits == 16 and white_bits(_lightest(image) << 8, kind, stated) != 16:
        raise _LeftOut(UNCLEAR_RANGE)
    if image.has_transparency_data:
        image = _on_white(image)
    return image


def _array_of(image: Image.Image) -> np.ndarray:
    """As `np.asarray`, which takes its memory twice for a moment."""
    width, height = image.size
    array = None
    for top in range(0, height, _BAND):
        band = np.asarray(image.crop((0, top, width, min(top + _BAND, height))))
        if array is None:
            array = np.empty((height, *band.shape[1:]), band.dtype)
        array[top : top + _BAND] = band
    return array


def _scaled(values: np.ndarray, negative: bool, bits: int | None = None) -> Image.Image:
    pixels = as_uint8(values, bits)
    if pixels is None:
        raise _LeftOut(UNCLEAR_RANGE)
    return Image.fromarray(255 - pixels if negative else pixels)


def _lightest(image: Image.Image) -> int:
    """Of the colours, whatever the opacity."""
    names = image.getbands()
    ranges = image.getextrema() if len(names) > 1 else [image.getextrema()]
    return max(high for name, (_, high) in zip(names, ranges, strict=True) if name != "A")


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION))
    except _DAMAGE:  # of what is written beside the pixels
        turn = None
    if turn is None:
        return image
    turned = image.transpose(turn)
    image.close()  # or its pixels would stay until Python finds the circle that it lies in
    return turned


def _on_white(image: Image.Image) -> Image.Image:
    mode = "LA" if image.mode in _GRAY_MODES else "RGBA"
    if image.mode != mode:
        image, before = image.convert(mode), image
        before.close()  # its pixels are not needed any more, and take memory
    opacity = image.getchannel("A")
    if not opacity.getextrema()[1]:
        raise _LeftOut(TRANSPARENT)
    page = Image.new(mode[:-1], image.size, "white")
    page.paste(image, mask=opacity)
    return page


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise _LeftOut(NO_HEIF) from None
    register_heif_opener()
