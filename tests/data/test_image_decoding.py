"""Pixels as they are meant: depth, range, transparency, orientation, limits; or a reason."""

import ctypes
import io
import os
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasmlp.data.images.image_decoding import as_uint8, decode_image, max_pixels

RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)
COLOUR = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)


def saved(image, kind, **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        file, kind, **options
    )
    return file.getvalue()


def pixels_of(data, **options):
    pixels, reason = decode_image(data, **options)
    assert reason is None
    return pixels


def png_of_16_bits(colours):
    cv2 = pytest.importorskip("cv2")
    order = [2, 1, 0, 3][: colours.shape[2]]
    return cv2.imencode(".png", colours[..., order])[1].tobytes()


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm", "jpeg2000"])
def test_a_ramp_of_16_bits_keeps_its_upper_8(kind):
    pixels = pixels_of(saved(RAMP, kind))
    assert pixels.shape == (256, 256, 1)
    np.testing.assert_array_equal(pixels[..., 0], RAMP >> 8)


def test_colours_of_16_bits_too():
    colours = np.dstack([RAMP, RAMP[::-1], RAMP.T])
    np.testing.assert_array_equal(pixels_of(png_of_16_bits(colours)), colours >> 8)


def test_floats_from_0_to_1():
    values = np.arange(256, dtype=np.float32).reshape(16, 16) / 255
    np.testing.assert_array_equal(
        pixels_of(saved(values, "tiff")).ravel(), np.arange(256, dtype=np.uint8)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_colours_in_floats(dtype):
    cv2 = pytest.importorskip("cv2")
    values = (COLOUR[..., ::-1] / 255).astype(dtype)
    data = cv2.imencode(".tif", values)[1].tobytes()
    np.testing.assert_array_equal(pixels_of(data), COLOUR)
    unclear = cv2.imencode(".tif", values * 255)[1].tobytes()
    assert decode_image(unclear) == (None, "16-bit or float pixels of unclear range")
    assert decode_image(data[: len(data) // 2])[1] == decode_image(data[:-9])[1]
    assert decode_image(data[:-9]) == (None, "failed to read image")


def test_twelve_bits():
    rows = (1 << 12) - 1 - 16 * np.arange(4)
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in rows.reshape(2, 2)
    )
    entries = [
        (256, 3, 4), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 134),
        (277, 3, 1), (278, 3, 1), (279, 4, len(packed)), (296, 3, 1),
    ]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    head += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    data = (head + bytes(4)).ljust(134, b"\0") + packed
    np.testing.assert_array_equal(pixels_of(data).ravel(), rows >> 4)


@pytest.mark.parametrize(
    "values",
    [
        RAMP // 256,  # 8 bits in 16
        RAMP.astype(np.int32),  # of 32 bits, or of 16
        RAMP.astype(np.float32),
        -RAMP.astype(np.float32) / 65535,
        RAMP / np.float32(255 * 65535),  # scaled twice
        np.full((4, 4), np.nan, np.float32),
    ],
    ids=["8", "int32", "to 65535", "negative", "scaled twice", "NaN"],
)
def test_what_has_no_clear_range_is_left_out(values):
    assert decode_image(saved(values, "tiff")) == (None, "16-bit or float pixels of unclear range")


def test_dark_colours_of_16_bits_are_left_out():
    data = png_of_16_bits(np.dstack([RAMP, RAMP, RAMP]) // 16)
    assert decode_image(data) == (None, "16-bit or float pixels of unclear range")
    opaque = np.dstack([RAMP, RAMP, RAMP, np.full_like(RAMP, 65535)]) // np.uint16([2, 2, 2, 1])
    opaque[:9, :, 3] = 0  # where the white page shows
    assert decode_image(png_of_16_bits(opaque))[1] == "16-bit or float pixels of unclear range"
    assert pixels_of(png_of_16_bits(np.dstack([RAMP, RAMP // 2, RAMP]))).max() == 255


def tiff_of(values, *more):
    """A grey TIFF of one strip, of little-endian numbers."""
    kind = {"u": 1, "f": 3}[values.dtype.kind]
    entries = [
        (256, 3, values.shape[1]), (257, 3, values.shape[0]), (258, 3, 8 * values.itemsize),
        (259, 3, 1), (273, 4, 150), (277, 3, 1), (279, 4, values.nbytes), (339, 3, kind), *more,
    ]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    parts = (struct.pack("<HHII", tag, kind, 1, v) for tag, kind, v in sorted(entries))
    return (head + b"".join(parts) + bytes(4)).ljust(150, b"\0") + values.tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_tiff_whose_zero_is_white(dtype):
    if dtype == "float64":
        pytest.importorskip("cv2")
    white = 1 if dtype[0] == "f" else np.iinfo(dtype).max
    ramp = (np.arange(6)[None] / 5 * white).astype(dtype)
    for photometric, expected in (
        (1, [0, 51, 102, 153, 204, 255]),
        (0, [255, 204, 153, 102, 51, 0]),
    ):
        data = tiff_of(ramp, (262, 3, photometric))
        np.testing.assert_array_equal(pixels_of(data)[0, :, 0], expected)
    dark = tiff_of(ramp // 16 if dtype == "uint16" else ramp * 99, (262, 3, 0))
    assert dtype == "uint8" or decode_image(dark)[1] == "16-bit or float pixels of unclear range"


@pytest.mark.parametrize("bits", [12, 13, 14, 15])
def test_fewer_than_16_bits_in_16_are_left_out_unless_the_file_states_them(bits):
    values = RAMP >> (16 - bits)
    unclear = (None, "16-bit or float pixels of unclear range")
    black_first = (262, 3, 1)
    for data in (saved(values, "png"), tiff_of(values, black_first)):
        assert decode_image(data) == unclear
    stated = tiff_of(values, black_first, (281, 3, (1 << bits) - 1))
    np.testing.assert_array_equal(pixels_of(stated)[..., 0], RAMP >> 8)
    as_it_is = tiff_of(values, black_first, (281, 3, 65535))
    np.testing.assert_array_equal(pixels_of(as_it_is)[..., 0], values >> 8)
    assert decode_image(tiff_of(RAMP, black_first, (281, 3, (1 << bits) - 1)))[1] == unclear[1]

    def png_that_states(number):
        data, part = saved(values, "png"), b"sBIT" + bytes([number])
        return data[:33] + b"\0\0\0\1" + part + struct.pack(">I", zlib.crc32(part)) + data[33:]

    np.testing.assert_array_equal(pixels_of(png_that_states(16))[..., 0], values >> 8)
    np.testing.assert_array_equal(pixels_of(png_that_states(bits - 1))[..., 0], values >> 8)
    assert decode_image(png_that_states(bits)) == unclear  # spread, as PNG wants it, or not


def test_arrays():
    np.testing.assert_array_equal(as_uint8(RAMP), RAMP >> 8)
    np.testing.assert_array_equal(as_uint8(COLOUR / 255), COLOUR)
    np.testing.assert_array_equal(as_uint8((COLOUR / 255).astype(np.float16)), COLOUR)
    assert as_uint8(COLOUR.astype(np.int64)) is None and as_uint8(RAMP[:0]) is None


def test_grey_palettes_and_colours_keep_their_channels():
    gray = COLOUR[..., 0]
    assert pixels_of(saved(gray, "png")).shape == (24, 36, 1)
    assert pixels_of(saved(Image.fromarray(gray > 99), "png")).shape == (24, 36, 1)
    palette = Image.fromarray(COLOUR).quantize(16)
    for kind in ("png", "gif"):
        np.testing.assert_array_equal(pixels_of(saved(palette, kind)), palette.convert("RGB"))
    expected = np.asarray(Image.fromarray(COLOUR).convert("L"))
    np.testing.assert_array_equal(pixels_of(saved(COLOUR, "png"), gray=True)[..., 0], expected)


def test_the_first_picture_of_an_animation():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = saved(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert (pixels_of(data) == [255, 0, 0]).all()


def test_transparency_lies_on_white():
    image = np.dstack([COLOUR, np.full((24, 36), 255, np.uint8)])
    np.testing.assert_array_equal(pixels_of(saved(image, "png")), COLOUR)
    image[:12, :, 3] = 0
    pixels = pixels_of(saved(image, "png"))
    assert (pixels[:12] == 255).all()
    np.testing.assert_array_equal(pixels[12:], COLOUR[12:])
    half = Image.new("LA", (4, 4), (0, 128))
    assert (pixels_of(saved(half, "png")) == 127).all() and pixels_of(saved(half, "png")).ndim == 3
    image[..., 3] = 0
    assert decode_image(saved(image, "png")) == (None, "wholly transparent")
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 0, 0, 0, 200, 0])
    palette.putpixel((1, 0), 1)
    data = saved(palette, "png", transparency=0)
    np.testing.assert_array_equal(pixels_of(data)[0], [[255, 255, 255], [0, 200, 0]])


def test_cmyk():
    data = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "jpeg", quality=100)
    np.testing.assert_allclose(pixels_of(data)[8, 8].astype(int), [255, 0, 0], atol=3)


@pytest.mark.parametrize("kind", ["png", "webp", "tiff", "jpeg", "avif"])
def test_every_orientation_is_undone(kind):
    image = Image.fromarray(np.kron(COLOUR[:2, :3], np.ones((16, 16, 1), np.uint8)))
    undone = [None, None, 0, 3, 1, 5, 4, 6, 2]  # the transpose of EXIF's number 2 to 8
    options = {"webp": {"lossless": True}, "jpeg": {"quality": 95}, "avif": {"quality": 95}}
    for number in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = number
        pixels = pixels_of(saved(image, kind, exif=exif.tobytes(), **options.get(kind, {})))
        turn = undone[number]
        expected = image if turn is None else image.transpose(Image.Transpose(turn))
        middles = (slice(8, None, 16), slice(8, None, 16))
        expected = np.asarray(expected)[middles].astype(int)
        assert abs(pixels[middles].astype(int) - expected).max() <= (40 if kind == "jpeg" else 16)


def test_a_jpeg_without_its_end_is_not_its_thumbnail():
    thumbnail = saved(np.full((40, 60, 3), 255, np.uint8), "jpeg")
    entries = struct.pack("<HHII", 0x0201, 4, 1, 44) + struct.pack(
        "<HHII", 0x0202, 4, 1, len(thumbnail)
    )
    tiff = b"II*\0" + struct.pack("<IHI", 8, 0, 14) + struct.pack("<H", 2) + entries + bytes(4)
    exif = b"Exif\0\0" + tiff.ljust(44, b"\0") + thumbnail
    whole = saved(np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8), "jpeg")
    whole = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + whole[2:]
    assert pixels_of(whole).shape == (300, 300, 1)
    for share in (0.3, 0.6, 0.999):
        cut = whole[: int(len(whole) * share)]
        assert b"\xff\xd9" in cut and decode_image(cut) == (None, "failed to read image")


def test_a_png_with_a_turned_bit_is_not_another_picture():
    whole = saved(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), "u1")), "png"
    )
    assert pixels_of(whole).shape == (9, 9, 3)
    start = whole.index(b"IDAT") + 4
    for place in range(start, len(whole) - 12):
        broken = bytearray(whole)
        broken[place] ^= 4
        assert decode_image(bytes(broken)) == (None, "failed to read image")


def test_what_promises_too_much_is_left_out_before_it_is_decoded(monkeypatch):
    monkeypatch.delenv("OPENCV_IO_MAX_IMAGE_PIXELS", raising=False)  # the page sets it
    bomb = saved(Image.new("1", (12_000, 8_000)), "png")
    assert len(bomb) < 50_000
    assert decode_image(bomb) == (None, "more pixels than are read")
    assert max_pixels(20_000_000) > 100_000_000  # what telephones make
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "800")
    assert decode_image(saved(COLOUR, "png")) == (None, "more pixels than are read")
    # Pillow's own limit
    assert decode_image(saved(Image.new("1", (40_000, 5_000)), "png"))[1] == (
        "more pixels than are read"
    )


def peak_of_this_process():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def most_memory(data):
    """Bytes that decoding takes at its peak, in a process of its own.

    Of small pictures up to a quarter more than of those of 20 megapixels.
    """
    reads, writes = os.pipe()
    if not (child := os.fork()):
        try:
            libc = ctypes.CDLL(None)
            libc.mallopt(-3, 1 << 17)  # large blocks are mapped, and go back when they are freed
            libc.malloc_trim(0)  # what is free already would hide what is taken
            Path("/proc/self/clear_refs").write_text("5")  # the peak is what is taken now
            before = peak_of_this_process()
            decode_image(data)
            os.write(writes, str(peak_of_this_process() - before).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with open(reads) as file:
        peak = file.read()
    os.waitpid(child, 0)
    return int(peak)


def pictures_to_measure():
    gray = Image.linear_gradient("L").resize((2000, 1500))
    colour = Image.merge("RGB", [gray] * 3)
    deep = np.asarray(gray).astype(np.uint16) << 8
    exif = Image.Exif()
    exif[0x0112] = 6
    png = {"compress_level": 1, "exif": exif.tobytes()}
    tiff = {"compression": "tiff_deflate", "tiffinfo": {0x0112: 6}}
    yield "RGB", saved(colour, "png", **png)
    yield "RGBA", saved(Image.merge("RGBA", [gray] * 4), "png", **png)
    yield "palette", saved(gray.convert("P"), "png", transparency=0, **png)
    yield "grey and opacity", saved(Image.merge("LA", [gray] * 2), "png", **png)
    yield "CMYK", saved(colour.convert("CMYK"), "jpeg", exif=exif.tobytes())
    yield "16 bits", saved(deep, "tiff", **tiff)
    yield "32 bits", saved(deep.astype(np.int32), "tiff", **tiff)
    yield "floats", saved(deep / np.float32(65535), "tiff", **tiff)
    webp = Image.merge("RGBA", [gray] * 4)
    yield "WebP", saved(webp, "webp", lossless=True, quality=0, method=0)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc")
def test_no_picture_takes_more_memory_than_its_limit_counts_on(monkeypatch):
    monkeypatch.delenv("OPENCV_IO_MAX_IMAGE_PIXELS", raising=False)
    peaks = {name: most_memory(data) / 3e6 for name, data in pictures_to_measure()}
    assert min(peaks.values()) > 4
    limits = {name: (1 << 30) / max_pixels(0, *[20] * (name == "WebP")) for name in peaks}
    assert {name: peak for name, peak in peaks.items() if peak > 1.25 * limits[name]} == {}


def test_heic_by_pillow_heif_or_a_reason(monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    image = Image.fromarray(np.kron(COLOUR[:2, :3], np.ones((32, 32, 1), np.uint8)))
    heif.from_pillow(image).save(file, quality=95)
    pixels = pixels_of(file.getvalue())
    assert pixels.shape == (64, 96, 3)
    middles = (slice(16, None, 32), slice(16, None, 32))
    assert abs(pixels[middles].astype(int) - COLOUR[:2, :3]).max() < 24
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert decode_image(file.getvalue()) == (
        None,
        "HEIC, which needs pip install kerasmlp[heif]",
    )
