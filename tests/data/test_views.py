"""Views against torchvision's definitions, and against what can be said of them without another library."""

import inspect
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as reference

from rizbin.core.errors import RizbinError
from rizbin.core.random import generator
from rizbin.data import views
from rizbin.data.views import AUGMENTATIONS, Augmentation, View, denormalize, normalize, only, whole

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
SMOOTH = np.kron(NOISE[:6, :8], np.ones((8, 8, 1), np.uint8))
ALL = View.Settings(
    size=32,
    crop_area=(0.2, 1.0),
    crop_ratio=(0.75, 4 / 3),
    flip=0.5,
    jitter=0.8,
    grayscale=0.2,
    blur=0.5,
    solarize=0.2,
    noise=0.5,
)


def to_torch(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def difference(ours: np.ndarray, theirs: Tensor) -> int:
    return int(np.abs(ours.astype(int) - theirs.permute(1, 2, 0).numpy().astype(int)).max())


@pytest.mark.parametrize("image", [NOISE, SMOOTH], ids=["noise", "smooth"])
@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (views.change_brightness, reference.adjust_brightness),
        (views.change_contrast, reference.adjust_contrast),
        (views.change_saturation, reference.adjust_saturation),
    ],
)
def test_colors_are_torchvisions(image: np.ndarray, factor: float, ours: Callable, theirs: Callable) -> None:
    # torchvision cuts fractions off, we round: one level apart.
    assert difference(ours(image, factor), theirs(to_torch(image), factor)) <= 1


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.03, 0.1, 0.5])
def test_hue_is_torchvisions(turn: float) -> None:
    assert difference(views.turn_hue(NOISE, turn), reference.adjust_hue(to_torch(NOISE), turn)) <= 1


def test_grayscale_and_solarize_are_torchvisions() -> None:
    assert difference(views.to_grayscale(NOISE), reference.rgb_to_grayscale(to_torch(NOISE), 3)) <= 1
    assert difference(views.invert_bright(NOISE), reference.solarize(to_torch(NOISE), 128)) == 0


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_torchvisions(sigma: float) -> None:
    kernel = round(6 * sigma + 1) | 1  # OpenCV's choice for 8 bits: three deviations to each side
    theirs = reference.gaussian_blur(to_torch(NOISE), [kernel, kernel], [sigma, sigma])
    assert difference(views.gaussian_blur(NOISE, sigma), theirs) <= 1


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_noise_has_the_deviation_that_it_is_given_and_stays_within_white(sigma: float) -> None:
    gray = np.full((64, 64, 3), 128, np.uint8)
    noise = views.add_noise(gray, sigma, generator("noise")) - 128.0
    # 12,288 values: the deviation of a deviation is a part in 157; rounding adds a twelfth of a level squared.
    assert abs(noise.std() / 255 / sigma - 1) < 0.04 and abs(noise.mean()) < 5 * 255 * sigma / 110
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.08
    white = views.add_noise(np.full((64, 64, 3), 255, np.uint8), sigma, generator("noise"))
    assert white.max() == 255 and white.min() > 255 - 6 * 255 * sigma


def test_noise_leaves_the_next_view_as_it_is() -> None:
    after = []
    for noise in (0.0, 1.0):
        random = generator("next")
        View(View.Settings(size=32, noise=noise))(NOISE, random)
        after.append(random.random())
    assert after[0] == after[1]


def test_strengths_of_noise_are_uniform_between_their_ends() -> None:
    gray = np.full((32, 32, 3), 128, np.uint8)
    view = View(View.Settings(size=32, noise=1.0, noise_sigma=(0.02, 0.1)))
    found = [view(gray, generator("strength", number))[0].std() / 255 for number in range(300)]
    assert 0.018 < min(found) < 0.03 and 0.09 < max(found) < 0.106
    assert abs(np.mean(found) - 0.06) < 4 * 0.08 / np.sqrt(12 * 300)


def test_growing_is_torchs_bicubic_and_shrinking_the_mean_over_areas() -> None:
    """torchvision knows no filter over areas, and its bicubic filter of bytes is not that of floats."""
    numbers = to_torch(NOISE).double()
    for size in (64, 77, 100):
        theirs = F.interpolate(numbers[None], size=(size, size), mode="bicubic")[0].round().clamp(0, 255)
        assert difference(views._resize(NOISE, size), theirs) <= 1  # rounding
    for size in (8, 20, 31, 47):
        theirs = torch.from_numpy(_coverage(48, size) @ numbers.numpy() @ _coverage(64, size).T)
        assert difference(views._resize(NOISE, size), theirs.round()) <= 1


def _coverage(before: int, after: int) -> np.ndarray:
    """How much of each new pixel each old one covers, [after, before]."""
    edges = np.arange(after + 1) * before / after
    pixels = np.arange(before)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return overlap.clip(0) * after / before


def test_a_flip_is_torchvisions() -> None:
    settings = View.Settings(size=40, crop_area=(0.3, 0.8), flip=1.0)
    for number in range(5):
        straight = View(replace(settings, flip=0.0))(NOISE, generator(number))[0]
        flipped = View(settings)(NOISE, generator(number))[0]
        assert difference(flipped, reference.horizontal_flip(to_torch(straight))) == 0


def test_default_is_the_whole_picture() -> None:
    square = NOISE[:, 8:56]
    for image in (square, NOISE):
        pixels, crop, flipped = View(View.Settings(size=24))(image, generator(1))
        assert np.array_equal(pixels, whole(image, 24)) and not flipped
    assert crop == (8 / 64, 0.0, 56 / 64, 1.0)
    upright = np.ascontiguousarray(NOISE.swapaxes(0, 1))
    assert View(View.Settings(size=24))(upright, generator(1))[1] == (0.0, 8 / 64, 1.0, 56 / 64)
    assert np.array_equal(whole(square, 48), square)


def test_crop_and_flip_are_what_they_say() -> None:
    settings = View.Settings(size=32, crop_area=(0.2, 0.9), crop_ratio=(0.5, 2.0), flip=0.5)
    seen = set()
    for number in range(50):
        pixels, (left, top, right, bottom), flipped = View(settings)(SMOOTH, generator(number))
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
        width, height = (right - left) * 64, (bottom - top) * 48
        assert 0.19 <= width * height / (64 * 48) <= 0.92 and 0.47 <= width / height <= 2.1
        part = SMOOTH[round(top * 48) : round(bottom * 48), round(left * 64) : round(right * 64)]
        straight = views._resize(part, 32)
        assert np.array_equal(pixels, straight[:, ::-1] if flipped else straight)
        seen.add(flipped)
    assert seen == {False, True}


def test_crops_are_uniform_in_area() -> None:
    settings = View.Settings(size=1, crop_area=(0.3, 0.9), crop_ratio=(0.9, 1.1))
    image = np.zeros((400, 400, 3), np.uint8)
    areas = []
    for number in range(600):
        _, (left, top, right, bottom), _ = View(settings)(image, generator(number))
        areas.append((right - left) * (bottom - top))
    # The mean of 600 uniform draws lies within 0.6 / sqrt(12 * 600) * 4 = 0.028 of the middle, but for 1 in 16,000;
    # crops too wide for the picture are drawn again, which takes a little off the largest.
    assert abs(np.mean(areas) - 0.6) < 0.03
    assert min(areas) < 0.35 and max(areas) > 0.85


def test_same_key_same_view_and_one_change_leaves_the_others() -> None:
    view = View(ALL)
    first, again, other = view(NOISE, generator(7)), view(NOISE, generator(7)), view(NOISE, generator(8))
    assert np.array_equal(first[0], again[0]) and first[1:] == again[1:]
    assert not np.array_equal(first[0], other[0])
    plain = View(View.Settings(size=32, crop_area=(0.2, 1.0), crop_ratio=(0.75, 4 / 3), flip=0.5))
    for number in range(20):
        assert plain(NOISE, generator(number))[1:] == view(NOISE, generator(number))[1:]


@pytest.mark.parametrize("name", ["jitter", "grayscale", "blur", "solarize", "noise", "flip"])
def test_probabilities_are_kept(name: str) -> None:
    plain = whole(NOISE, 48)

    def changed(probability: float) -> int:
        view = View(replace(View.Settings(size=48), **{name: probability}))
        return sum(not np.array_equal(view(NOISE, generator(name, number))[0], plain) for number in range(200))

    assert changed(0.0) == 0
    # Binomial(200, 0.3): beyond 60 +- 26 (four deviations) one time in 16,000. The key is fixed.
    assert 34 <= changed(0.3) <= 86
    # The slightest blur, under a quarter of a pixel, rounds to nothing: one in twelve.
    assert changed(1.0) >= 170 if name == "blur" else changed(1.0) == 200


def test_jitter_takes_every_order() -> None:
    settings = View.Settings(jitter=1.0)
    draws = [0.9, 0.1, 0.9, 0.7]
    results = {
        views._jitter(SMOOTH, settings, draws + keys).tobytes() for keys in ([0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1])
    }
    assert len(results) == 2


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        (AUGMENTATIONS, ALL),
        ((), View.Settings(size=32)),
        (("crop", "flip"), replace(ALL, jitter=0.0, grayscale=0.0, blur=0.0, solarize=0.0, noise=0.0)),
        (("blur",), View.Settings(size=32, blur=0.5)),
        (("noise",), View.Settings(size=32, noise=0.5)),
        (("jitter", "solarize"), View.Settings(size=32, jitter=0.8, solarize=0.2)),
    ],
    ids=str,
)
def test_only_what_is_named_is_kept(kept: tuple[Augmentation, ...], left: View.Settings) -> None:
    assert only(ALL, kept) == left


def test_only_names_what_there_is_not() -> None:
    unchecked = inspect.unwrap(only)  # the tests' type checks would speak first
    with pytest.raises(RizbinError, match=r"no augmentation 'rotate'; there are crop, flip, jitter"):
        unchecked(ALL, ["flip", "rotate"])


def test_inputs_are_left_alone() -> None:
    before = NOISE.copy()
    for number in range(20):
        View(ALL)(NOISE, generator(number))
    assert np.array_equal(before, NOISE)


def test_normalize_is_torchvisions_and_comes_back() -> None:
    pixels = torch.from_numpy(NOISE)[None]
    theirs = reference.normalize(pixels.permute(0, 3, 1, 2).float() / 255, list(views.MEAN), list(views.STD))
    assert torch.allclose(normalize(pixels), theirs, atol=1e-5)  # float32 rounding, values up to 2.6
    assert normalize(pixels).is_contiguous()
    assert torch.equal(denormalize(normalize(pixels)), pixels)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (7, 300), (300, 7)])
def test_odd_shapes_become_views(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    for number in range(5):
        pixels, _, _ = View(View.Settings(size=16, crop_area=(0.1, 0.5), crop_ratio=(0.75, 1.33)))(
            image, generator(number)
        )
        assert pixels.shape == (16, 16, 3) and (pixels == 77).all()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"size": 0}, "size"),
        ({"flip": 1.5}, "flip"),
        ({"hue": 0.6}, "hue"),
        ({"crop_area": (0.0, 1.0)}, "crop_area"),
        ({"crop_area": (0.5, 1.2)}, "crop_area"),
        ({"crop_ratio": (2.0, 1.0)}, "crop_ratio"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma"),
        ({"noise": -0.1}, "noise"),
        ({"noise_sigma": (0.1, 1.5)}, "noise_sigma"),
    ],
)
def test_impossible_settings_are_named(change: dict, word: str) -> None:
    with pytest.raises(RizbinError, match=word):
        View(View.Settings(**change))


def test_a_view_costs_little() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    view = View(View.Settings(size=64, crop_area=(0.3, 1.0), crop_ratio=(0.75, 4 / 3), flip=0.5, jitter=0.8, blur=0.5))
    random = generator(0)
    start = time.process_time()
    for _ in range(300):
        view(image, random)
    # 0.17 ms without the shape checks of the tests; the bound only catches a slow operation (torchvision's blur: 90).
    assert (time.process_time() - start) / 300 < 0.002
