"""One image, several doors: path, Pillow's image and arrays give the same pixels, or one sentence."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rizbin.data.image_io import as_rgb, read_image
from rizbin.data.sample import Refused

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_a_file_and_pillows_image_of_it_are_the_same(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[274] = 6
    gray = Image.fromarray(PIXELS[..., 0])
    keyed = gray.convert("P")
    keyed.info["transparency"] = 7
    images = {
        "plain.png": (Image.fromarray(PIXELS), {}),
        "turned.jpg": (Image.fromarray(PIXELS), {"exif": turned}),
        "turned.png": (Image.fromarray(PIXELS), {"exif": turned}),
        "alpha.png": (Image.fromarray(np.dstack([PIXELS, PIXELS[..., 1]])), {}),
        "gray.png": (gray, {}),
        "gray alpha.png": (Image.fromarray(PIXELS[..., :2].copy(), "LA"), {}),
        "palette.png": (keyed, {"transparency": 7}),
        "bits.png": (gray.convert("1"), {}),
        "sixteen.png": (Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), {}),
        "cmyk.jpg": (Image.fromarray(PIXELS).convert("CMYK"), {}),
        "a.webp": (Image.fromarray(PIXELS), {"lossless": True}),
    }
    for name, (image, options) in images.items():
        path = tmp_path / name
        image.save(path, **options)
        expected = read_image(path)
        with Image.open(path) as opened:
            assert np.array_equal(as_rgb(opened), expected), name
            assert np.array_equal(as_rgb(opened.copy()), expected), name
        assert np.array_equal(as_rgb(path), expected) and np.array_equal(as_rgb(str(path)), expected)


def test_arrays_of_every_kind_are_rgb() -> None:
    gray = PIXELS[..., 0]
    same = {
        "in reverse": PIXELS[..., ::-1][..., ::-1],
        "a part": np.pad(PIXELS, ((5, 5), (5, 5), (0, 0)))[5:-5, 5:-5],
        "columns first": np.asfortranarray(PIXELS),
        "read only": np.frombuffer(PIXELS.tobytes(), np.uint8).reshape(PIXELS.shape),
        "0 to 1": (PIXELS / 255).astype(np.float32),
        "0 to 1, long": PIXELS / 255,
        "16 bits": PIXELS.astype(np.uint16) * 257,
        "whole numbers": PIXELS.astype(np.int64),
    }
    for name, pixels in same.items():
        found = as_rgb(pixels)
        assert np.array_equal(found, PIXELS) and found.flags.c_contiguous and found.dtype == np.uint8, name
    assert np.array_equal(as_rgb(PIXELS[..., ::-1]), PIXELS[..., ::-1])
    for pixels in (gray, gray[..., None], (gray / 255).astype(np.float32)):
        assert np.array_equal(as_rgb(pixels), np.repeat(gray[..., None], 3, -1))
    assert np.array_equal(as_rgb(np.dstack([PIXELS, np.full_like(gray, 255)])), PIXELS)
    assert np.array_equal(as_rgb(np.dstack([PIXELS / 255, np.ones_like(gray)])), PIXELS)
    assert np.array_equal(as_rgb(gray > 99)[..., 0], np.where(gray > 99, 255, 0))
    assert np.array_equal(as_rgb(np.dstack([gray, np.full_like(gray, 255)]))[..., 2], gray)


def test_an_array_that_torch_made_is_one_too() -> None:
    import torch

    assert np.array_equal(as_rgb(torch.from_numpy(PIXELS)), PIXELS)
    with pytest.raises(Refused, match="cannot be made an array"):
        as_rgb(torch.zeros(4, 4, 3, requires_grad=True))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (PIXELS.astype(np.float32), "float32 values from 0 to 255; give RGB pixels, 0 to 255"),
        (np.full((4, 4, 3), np.nan), "float64 values from nan"),
        (np.full((4, 4, 3), -1), "int64 values from -1 to -1"),
        (np.full((4, 4, 3), 300), "300"),
        (PIXELS.astype(np.uint16), "uint16"),
        (PIXELS.transpose(2, 0, 1), "shape [3, 20, 30]"),
        (PIXELS[None], "shape [1, 20, 30, 3]"),
        (np.dstack([PIXELS, PIXELS[..., 0]]), "alpha channel that is not 255 everywhere; give RGB pixels, 0 to 255"),
        (PIXELS[..., :2], "alpha channel"),
        (np.zeros((0, 5, 3), np.uint8), "5 x 0"),
        (np.zeros((2, 900, 3), np.uint8), "too long a strip"),
        (np.array("a"), "shape []"),
        (np.full((4, 4, 3), None), "type object"),
        (np.zeros((4, 4, 3), np.complex64), "complex64"),
        (Image.fromarray(PIXELS[..., 0].astype(np.float32)), "floating-point"),
        (None, "is of type NoneType; give a path"),
        (b"bytes", "is of type bytes; give a path"),
        ([[1, 2]], "is of type list; give a path"),
    ],
)
def test_all_else_is_one_sentence(image: object, words: str) -> None:
    with pytest.raises(Refused) as caught:
        as_rgb(image, name="image 3")
    assert words in str(caught.value) and str(caught.value).startswith("image 3 ") and str(caught.value).endswith(".")


def test_a_damaged_file_opened_by_pillow_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with Image.open(path) as opened, pytest.raises(Refused, match="damaged or cut short"):
        as_rgb(opened)
