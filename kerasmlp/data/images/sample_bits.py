"""What a picture's numbers of 16 bits mean: which is white, and whether the file says so."""

import struct

from PIL import Image

_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE_VALUE = 258, 262, 281  # of TIFF
_COLOURS = {0: 1, 2: 3, 4: 1, 6: 3}  # numbers per pixel by PNG's kind of colour, without opacity
_HEAD = 33  # bytes of a PNG before its first optional part


def sample_bits(image: Image.Image) -> int:
    """Bits of each number in the file, as far as it matters here."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
    deep = image.mode.startswith("I") or (image.format == "PNG" and "16" in image.tile[0].args)
    return 16 if deep else 8


def zero_is_white(image: Image.Image) -> bool:
    """Whether a TIFF's numbers are a negative (MinIsWhite), which Pillow undoes up to 8 bits."""
    return image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0


def stated_bits(image: Image.Image, data: bytes) -> int | None:
    """How many bits a TIFF or PNG itself says that its numbers have, or None."""
    if image.format == "PNG":
        return _stated_by_png(data)
    if image.format != "TIFF":
        return None
    if sample_bits(image) < 16:
        return sample_bits(image)
    most = image.tag_v2.get(_MAX_SAMPLE_VALUE)
    most = {*most} if isinstance(most, tuple) else {most}
    return next((bits for bits in range(9, 17) if most == {(1 << bits) - 1}), None)


def white_bits(lightest: int, kind: str | None = None, stated: int | None = None) -> int | None:
    """White is 2 to the power of this, less 1; None where that cannot be told.

    Numbers of 12 or 14 bits are often kept in 16, and look like a dark picture then.

    Args:
        lightest: The largest number, in 16 bits.
        kind: Of file: PNG has its numbers spread over all 16 bits whatever it
            states, and TIFF has not.
        stated: By the file, as `stated_bits` gives it.

    Example:

    >>> white_bits(40_000), white_bits(16_383), white_bits(16_383, "TIFF", 14)
    (16, None, 14)
    >>> white_bits(16_383, "PNG", 14), white_bits(20_000, "PNG", 14), white_bits(99, "PNG", 16)
    (None, 16, 16)
    """
    if stated is not None and kind == "TIFF":
        return stated if lightest < 1 << stated else None
    spread = stated is not None and (stated == 16 or lightest >> stated)
    return 16 if spread or lightest >> 15 else None


def _stated_by_png(data: bytes) -> int | None:
    at = _HEAD
    while data[at + 4 : at + 8] not in (b"IDAT", b"PLTE", b""):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"sBIT":
            stated = {*data[at + 8 : at + 8 + _COLOURS.get(data[25], 0)]}
            return min(stated) if len(stated) == 1 and stated <= {*range(1, 17)} else None
        at += length + 12
    return None
