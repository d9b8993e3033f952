"""The image gate: good pictures of every mode come out right, bad files are refused by one sentence and never crash."""

import os
import struct
import time
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

from rizbin.data import image_io as gate
from rizbin.data.image_io import read_image, read_rgba
from rizbin.data.sample import Refused

SMOOTH = np.stack(np.meshgrid(np.linspace(0, 255, 40), np.linspace(0, 255, 30)), -1)
RGB = np.concatenate([SMOOTH, np.full((30, 40, 1), 90.0)], -1).round().astype(np.uint8)
FORMATS = ["PNG", "BMP", "JPEG", "WEBP", "GIF"]


def pack(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, color: int, data: bytes) -> bytes:
    """A PNG with any header over any pixel data."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_comes_out_right(kind: str, tmp_path: Path) -> None:
    data = pack(RGB, kind, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))
    path = tmp_path / "picture.wrong-ending"
    path.write_bytes(data)
    tolerance = {"PNG": 0, "BMP": 0, "JPEG": 12, "WEBP": 16, "GIF": 40}[kind]  # lossy; GIF has 256 colors
    for source in (data, path, str(path)):
        image = read_image(source)
        assert image.shape == (30, 40, 3) and image.dtype == np.uint8
        assert np.abs(image.astype(int) - RGB).max() <= tolerance


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = pack(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (read_image(data) == (255, 0, 0)).all()


def test_gray_and_one_bit_become_three_channels() -> None:
    assert np.array_equal(read_image(pack(RGB[..., 0])), np.repeat(RGB[..., :1], 3, -1))
    bits = RGB[..., 0] > 99
    assert np.array_equal(read_image(pack(Image.fromarray(bits)))[..., 1], bits * np.uint8(255))


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_the_high_byte(channels: int) -> None:
    high = RGB[..., :channels]
    rows = np.stack([high, np.full_like(high, 200)], -1).reshape(30, -1)
    data = png(40, 30, 16, 0 if channels == 1 else 2, b"".join(b"\0" + row.tobytes() for row in rows))
    assert np.array_equal(read_image(data), np.broadcast_to(high, (30, 40, 3)))


def test_cmyk_jpeg_has_the_right_colors() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(read_image(pack(cmyk, "JPEG", quality=95)).astype(int) - (255, 0, 0)).max() <= 6


def test_alpha_lies_on_white() -> None:
    clear = np.dstack([RGB, np.full((30, 40), 0, np.uint8)])
    half = np.dstack([RGB, np.full((30, 40), 128, np.uint8)])
    assert (read_image(pack(clear)) == 255).all()
    assert np.abs(read_image(pack(half)).astype(float) - (RGB * (128 / 255) + 255 * (127 / 255))).max() <= 1
    gray = Image.fromarray(np.dstack([RGB[..., 0], np.zeros((30, 40), np.uint8)]), "LA")
    assert (read_image(pack(gray)) == 255).all()


def test_palettes_with_and_without_transparency() -> None:
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert (read_image(pack(palette)) == (10, 200, 30)).all()
    assert (read_image(pack(palette, transparency=1)) == 255).all()
    assert (read_rgba(pack(palette, transparency=1))[..., 3] == 0).all()
    keyed = Image.new("RGB", (8, 8), (1, 2, 3))
    assert (read_image(pack(keyed, transparency=(1, 2, 3))) == 255).all()


def test_rgba_is_given_as_it_is() -> None:
    pixels = np.dstack([RGB, RGB[..., 0]])
    assert np.array_equal(read_rgba(pack(pixels)), pixels)
    assert (read_rgba(pack(RGB))[..., 3] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_is_held_upright(orientation: int) -> None:
    turned = {1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1]} | {
        5: RGB.swapaxes(0, 1),
        6: np.rot90(RGB, 3),
        7: np.rot90(RGB, 2).swapaxes(0, 1),
        8: np.rot90(RGB),
    }
    exif = Image.Exif()
    exif[274] = orientation
    assert np.array_equal(read_image(pack(RGB, exif=exif)), turned[orientation])


def test_broken_metadata_spoils_no_picture() -> None:
    assert read_image(pack(RGB, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")).shape == (30, 40, 3)


def test_large_jpegs_are_decoded_smaller_when_that_is_enough() -> None:
    large = np.kron(RGB, np.ones((20, 20, 1), np.uint8))
    data = pack(large, "JPEG")
    assert read_image(data).shape == (600, 800, 3)
    small = read_image(data, enough=100)
    assert small.shape == (150, 200, 3)
    blocks = large.reshape(150, 4, 200, 4, 3).mean((1, 3))
    assert np.abs(small - blocks).mean() < 4
    assert read_image(pack(large), enough=100).shape == (600, 800, 3)


BAD = {
    "empty": (b"", "is empty"),
    "html": (b"\n<!DOCTYPE html><html>404", "a web page"),
    "svg": (b'<?xml version="1.0"?><svg/>', "an SVG"),
    "bare svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
    "tiff": (b"II*\0\x08\0\0\0", "a TIFF"),
    "pdf": (b"%PDF-1.7", "a PDF"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
    "text": (b"hello", "no known image format"),
    "short": (b"\xff", "no known image format"),
    "signature only": (b"\xff\xd8\xff", "damaged or cut short"),
    "truncated JPEG": (pack(RGB, "JPEG")[:-60], "damaged or cut short"),
    "truncated PNG": (pack(RGB)[:-40], "damaged or cut short"),
    "truncated WebP": (pack(RGB, "WEBP")[:-40], "damaged or cut short"),
    "truncated BMP": (pack(RGB, "BMP")[:-40], "damaged or cut short"),
    "bomb": (png(16000, 16000, 8, 2, bytes(1000)), "unpacks into more than"),
    "long side": (png(20000, 10, 8, 0, bytes(10)), "20000 x 10"),
    "gigantic": (png(2**31 - 1, 2**31 - 1, 8, 2, b""), "pixels"),
    "no pixels": (png(0, 5, 8, 2, b""), ""),
    "strip": (png(16000, 10, 8, 0, bytes(10)), "too long a strip"),
    "too few rows": (png(4000, 4000, 8, 2, bytes(1000)), "damaged or cut short"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_at_once(case: str, tmp_path: Path) -> None:
    data, words = BAD[case]
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    for read in (read_image, read_rgba):
        start = time.process_time()
        with pytest.raises(Refused) as refusal:
            read(path)
        assert time.process_time() - start < 1
        sentence = str(refusal.value)
        assert sentence.startswith(str(path)) and words in sentence and sentence.endswith(".") and "\n" not in sentence
        with pytest.raises(Refused, match="the third image"):
            read(data, name="the third image")


def test_a_packed_bomb_costs_nothing() -> None:
    # 14,000 x 14,000 black pixels in half a megabyte; OpenCV and torchvision unpack its 588 MB.
    data = png(14000, 14000, 8, 2, bytes(14000 * 3 + 1) * 2000)
    start = time.process_time()
    with pytest.raises(Refused, match="unpacks into more than"):
        read_image(data)
    assert time.process_time() - start < 0.5


def test_files_too_large_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(gate.MOST_BYTES + 1)
    with pytest.raises(Refused, match="more than 64"):
        read_image(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, words in ((pipe, "not a regular file"), (tmp_path, "not a regular"), (tmp_path / "none.png", "No such")):
        with pytest.raises(Refused, match=words):
            read_image(path)
    with pytest.raises(Refused):
        read_image("a\0b.png")


SEEDS = [pack(RGB, kind) for kind in FORMATS] + [pack(np.dstack([RGB, RGB[..., 0]])), png(40, 30, 16, 0, bytes(2430))]


@settings(deadline=None, max_examples=300)
@given(
    data=some.sampled_from(SEEDS),
    changes=some.lists(some.tuples(some.floats(0, 1, exclude_max=True), some.integers(0, 255)), max_size=8),
    cut=some.floats(0.1, 1),
    more=some.binary(max_size=20),
)
def test_damaged_files_are_decoded_or_refused(data: bytes, changes: list, cut: float, more: bytes) -> None:
    damaged = bytearray(data[: int(len(data) * cut)] + more)
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    for read in (read_image, read_rgba):
        try:
            image = read(bytes(damaged))
            assert image.ndim == 3 and image.dtype == np.uint8 and image.size
        except Refused as refusal:
            assert str(refusal).endswith(".")


@settings(deadline=None, max_examples=100)
@given(
    data=some.binary(max_size=200), start=some.sampled_from([b"", b"\xff\xd8\xff", b"BM", b"GIF89a", b"RIFF....WEBP"])
)
def test_any_bytes_are_decoded_or_refused(data: bytes, start: bytes) -> None:
    try:
        read_image(start + data)
    except Refused as refusal:
        assert str(refusal).startswith("the image ")
