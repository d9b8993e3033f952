"""The dense head against slow loops, and what it must not do: move, blur a constant, look beyond the image."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.nets import ImageTextPair, VisionEncoder
from rizbin.nets.dense import guided_upsample, windows
from rizbin.nets.text import TextEncoder

NANO = ImageTextPair.Settings(
    vision=VisionEncoder.Settings(name="rizbin_vit_nano_patch8_32", image_size=32),
    text=TextEncoder.Settings(width=32, layers=2, heads=2),
    embedding=16,
)


class Means:
    """A network whose patch embedding is the unit vector of the patch's mean color; remembers what it was shown."""

    patch_size = 8
    image_size = 32

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def dense(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        return F.normalize(F.avg_pool2d(images, self.patch_size).permute(0, 2, 3, 1), dim=-1)


def slow_windows(encoder: ImageTextPair, image: Tensor, scale: int, stride: float) -> Tensor:
    """Window by window and patch by patch, of one image."""
    patch, side = encoder.patch_size, encoder.image_size // encoder.patch_size
    whole = encoder.dense(image)[0]
    rows, columns = whole.shape[0] * scale, whole.shape[1] * scale
    large = F.interpolate(image, scale_factor=scale, mode="bicubic", align_corners=False)
    sums, counts = torch.zeros(rows, columns, whole.shape[-1]), torch.zeros(rows, columns)
    step, tops, lefts = max(1, round(side * stride)), set(), set()
    for starts, total in ((tops, rows), (lefts, columns)):
        start = 0
        while start + side < total:
            starts.add(start)
            start += step
        starts.add(max(total - side, 0))
    for top in tops:
        for left in lefts:
            height, width = min(side, rows), min(side, columns)
            window = large[..., top * patch : (top + height) * patch, left * patch : (left + width) * patch]
            found = encoder.dense(window)[0]
            for row in range(height):
                for column in range(width):
                    sums[top + row, left + column] += found[row, column]
                    counts[top + row, left + column] += 1
    smooth = F.interpolate(whole.permute(2, 0, 1)[None], scale_factor=scale, mode="bilinear", align_corners=False)[0]
    out = torch.zeros(rows, columns, whole.shape[-1])
    for row in range(rows):
        for column in range(columns):
            both = smooth[:, row, column] + sums[row, column] / counts[row, column]
            out[row, column] = both / both.norm()
    return out


@pytest.mark.parametrize(
    ("height", "width", "scale", "stride"),
    [(32, 32, 2, 1.0), (32, 32, 2, 0.5), (32, 48, 2, 0.5), (16, 40, 2, 0.5), (48, 32, 1, 0.75), (32, 32, 3, 1.0)],
)
def test_windows_are_those_of_a_slow_loop(height: int, width: int, scale: int, stride: float) -> None:
    torch.manual_seed(0)
    pair = ImageTextPair(NANO).eval()
    images = torch.randn(2, 3, height, width)
    with torch.no_grad():
        fast = windows(pair, images, scale=scale, stride=stride)
        slow = torch.stack([slow_windows(pair, image[None], scale, stride) for image in images])
    assert fast.shape == (2, height // 8 * scale, width // 8 * scale, 16)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=0)
    torch.testing.assert_close(fast.norm(dim=-1), torch.ones(fast.shape[:3]), atol=1e-5, rtol=0)


def test_the_pair_offers_it_by_name() -> None:
    torch.manual_seed(0)
    pair = ImageTextPair(NANO).eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(pair.dense(images, "windows"), windows(pair, images))


def test_all_windows_go_through_in_one_pass() -> None:
    encoder = Means()
    windows(encoder, torch.rand(3, 3, 32, 32), stride=0.5)
    assert encoder.seen == [(3, 3, 32, 32), (27, 3, 32, 32)]


def test_what_stands_somewhere_is_found_there() -> None:
    """Four colors in the four corners: nothing is shifted by half a patch and nothing is turned."""
    colors = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 1]]]).permute(2, 0, 1)[None]
    images = F.interpolate(colors, scale_factor=16, mode="nearest")
    found = windows(Means(), images, stride=0.5).flatten(0, 2) @ F.normalize(colors, dim=1).flatten(2)[0]
    corners = torch.tensor([[0, 1], [2, 3]]).repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert torch.equal(found.argmax(dim=1).view(8, 8), corners)


@pytest.mark.parametrize(("scale", "stride"), [(0, 0.5), (2, 0.0), (2, 1.5)])
def test_windows_that_cannot_be_are_refused(scale: int, stride: float) -> None:
    with pytest.raises(RizbinError, match="cannot be"):
        windows(Means(), torch.rand(1, 3, 32, 32), scale=scale, stride=stride)


def slow_upsample(scores: Tensor, image: Tensor, color: float, distance: float) -> Tensor:
    """Pixel by pixel and patch by patch, in float64, of one image."""
    scores, image = scores.double(), image.double()
    classes, rows, columns = scores.shape
    height, width = image.shape[1:]
    high, wide = height // rows, width // columns
    out = torch.zeros(classes, height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            total = 0.0
            for row in range(max(y // high - 1, 0), min(y // high + 2, rows)):
                for column in range(max(x // wide - 1, 0), min(x // wide + 2, columns)):
                    patch = image[:, row * high : (row + 1) * high, column * wide : (column + 1) * wide]
                    unlike = sum((image[c, y, x] - patch[c].mean()).item() ** 2 for c in range(3)) / 3
                    away = ((y + 0.5) / high - 0.5 - row) ** 2 + ((x + 0.5) / wide - 0.5 - column) ** 2
                    weight = math.exp(-unlike / (2 * color**2) - away / (2 * distance**2))
                    out[:, y, x] += weight * scores[:, row, column]
                    total += weight
            out[:, y, x] /= total
    return out


@pytest.mark.parametrize(("rows", "columns", "height", "width"), [(4, 4, 16, 16), (3, 5, 12, 10), (1, 2, 5, 6)])
def test_guided_upsampling_is_that_of_a_slow_loop(rows: int, columns: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(2, 4, rows, columns, generator=generator)
    images = torch.randn(2, 3, height, width, generator=generator)
    fast = guided_upsample(scores, images, color=0.5, distance=0.8)
    slow = torch.stack([slow_upsample(*both, 0.5, 0.8) for both in zip(scores, images, strict=True)])
    torch.testing.assert_close(fast.double(), slow, atol=1e-5, rtol=0)


def test_a_pixel_far_from_all_colors_still_gets_a_score() -> None:
    """Every weight alone is 0 in 32 bits there."""
    images = torch.zeros(1, 3, 8, 8)
    images[..., 0, 0] = 60.0
    found = guided_upsample(torch.ones(1, 1, 2, 2), images)
    torch.testing.assert_close(found, torch.ones(1, 1, 8, 8))


def test_guided_upsampling_follows_an_edge_that_the_grid_does_not_know() -> None:
    """The border of two colors runs through a patch; its pixels go with the side that they look like."""
    images = torch.full((1, 3, 16, 16), -1.0)
    images[..., 6:] = 1.0
    scores = torch.zeros(1, 1, 4, 4)
    scores[..., 1], scores[..., 2:] = 0.2, 1.0  # columns 4 to 7 are half and half
    found = guided_upsample(scores, images)[0, 0] > 0.5
    assert torch.equal(found, images[0, 0] > 0)
    bilinear = F.interpolate(scores, size=(16, 16), mode="bilinear", align_corners=False)[0, 0] > 0.5
    assert not torch.equal(bilinear, images[0, 0] > 0)


def test_images_that_do_not_divide_into_the_patches_are_refused() -> None:
    with pytest.raises(RizbinError, match=r"10x12 pixels does not divide into 4x4"):
        guided_upsample(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 10, 12))
