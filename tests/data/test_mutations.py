"""Damaged image files: none is used that Pillow, with every checksum compared, refuses."""

import warnings
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from rizbin.data.image_io import read_image
from rizbin.data.sample import Refused

SIDE = 64


def smooth(random: np.random.Generator, channels: int) -> np.ndarray:
    """Something that packs like a photograph, so that the files have many bytes that matter."""
    small = random.integers(0, 256, (8, 8, channels), np.uint8)
    large = np.kron(small, np.ones((SIDE // 8, SIDE // 8, 1), np.uint8)).astype(np.int16)
    return (large + random.integers(-20, 21, large.shape)).clip(0, 255).astype(np.uint8)


def seeds() -> list[bytes]:
    """Files of every kind that is read."""
    random, files = np.random.default_rng(0), []
    exif = Image.Exif()
    exif[274] = 6
    for kind, mode, options in (
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "L", {"exif": exif}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "1", {}),
        ("PNG", "I;16", {}),
        ("JPEG", "RGB", {"exif": exif}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "L", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("BMP", "RGB", {}),
        ("GIF", "P", {}),
    ):
        pixels = smooth(random, 4 if mode == "RGBA" else 3)
        image = Image.fromarray(pixels)
        if mode == "I;16":
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
        elif mode != image.mode:
            image = image.convert(mode)
        buffer = BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """One thing that disks, networks and people do to files."""
    damaged = bytearray(data)
    places = random.integers(0, len(data), 8)
    match int(random.integers(0, 7)):
        case 0:  # one bit
            damaged[places[0]] ^= 1 << int(random.integers(0, 8))
        case 1:  # some bytes
            for place in places[: random.integers(1, 9)]:
                damaged[place] = int(random.integers(0, 256))
        case 2:  # cut short
            damaged = damaged[: places[0]]
        case 3:  # a hole of zeros, as after a crash
            first, last = sorted(places[:2])
            damaged[first:last] = bytes(last - first)
        case 4:  # a piece is missing
            first, last = sorted(places[:2])
            del damaged[first : min(last, first + 600)]
        case 5:  # a piece stands twice
            first, last = sorted(places[:2])
            damaged[first:first] = damaged[first:last]
        case _:  # another file goes on in the middle
            damaged = damaged[: places[0]] + bytearray(random.integers(0, 256, 200, np.uint8).tobytes())
    return bytes(damaged)


def pillow_takes(data: bytes) -> bool:
    """Whether Pillow reads it to the end, its checksums compared."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Image.open(BytesIO(data)).verify()
            Image.open(BytesIO(data)).load()
        except Exception:
            return False
    return True


def used_against_pillow(count: int) -> tuple[int, int, int]:
    """(used, used though Pillow refuses, refused though Pillow takes it) of so many damaged files."""
    random, files = np.random.default_rng(1), seeds()
    used = wrong = strict = 0
    for number in range(count):
        data = mutated(files[number % len(files)], random)
        enough = 0 if number % 4 else 8
        try:
            image = read_image(data, enough=enough)
            assert image.dtype == np.uint8 and image.ndim == 3
            is_used = True
        except Refused as refusal:
            assert str(refusal).endswith(".") and "\n" not in str(refusal)
            is_used = False
        used += is_used
        if is_used != (takes := pillow_takes(data)):
            wrong += not takes
            strict += takes
    return used, wrong, strict


def test_none_of_650_damaged_images_is_used_that_pillow_refuses() -> None:
    used, wrong, strict = used_against_pillow(650)
    assert wrong == 0 and used > 30, "some damage spoils nothing that a checksum guards, in BMP say"
    assert strict <= 13, "PNGs whose last checksum alone is broken, which Pillow does not look at; strips"


@pytest.mark.slow
def test_none_of_10000_damaged_images_is_used_that_pillow_refuses() -> None:
    used, wrong, strict = used_against_pillow(10_000)
    assert wrong == 0 and used > 500 and strict <= 200


def test_every_bit_of_a_png_counts() -> None:
    data = seeds()[0]
    random = np.random.default_rng(2)
    for place in random.integers(0, len(data), 200):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(random.integers(0, 8))
        with pytest.raises(Refused):
            read_image(bytes(damaged))
