"""Views: what becomes of an image on its way into a network. Crop, flip, color, blur, noise; uint8 in, uint8 out.

The operations follow torchvision's definitions (the tests hold them together) but run on OpenCV, whose blur takes a
millisecond where torchvision's takes ninety. Every view draws the same count of random numbers whatever its settings,
so that turning one augmentation on leaves the others as they were.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rizbin.core.errors import RizbinError

# Images are small and processes run side by side; OpenCV's own threads would only fight with torch's, and a pool of
# threads does not survive the fork of a loader's worker.
cv2.setNumThreads(0)

MEAN = (0.485, 0.456, 0.406)
"""ImageNet's mean, RGB, for values from 0 to 1."""
STD = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation, RGB."""

Pixels = UInt8[np.ndarray, "height width 3"]
Square = UInt8[np.ndarray, "size size 3"]
Crop = tuple[float, float, float, float]

_ATTEMPTS = 10
"""Rectangles tried before the central one is taken, as torchvision's RandomResizedCrop does."""
_DRAWS = 4 * _ATTEMPTS + 14
_SOLARIZE_FROM = 128
"""Values from here on are inverted (BYOL, arXiv 2006.07733, appendix B)."""


class View:
    """Makes one augmented square from an image.

    Order of the operations: crop and resize, flip, color jitter, grayscale, blur, solarize (BYOL, arXiv 2006.07733),
    noise.
    """

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        size: int = 224
        """Side of the view in pixels."""
        crop_area: tuple[float, float] = (1.0, 1.0)
        """Least and greatest area of the crop as a share of the image, 0 to 1; (1, 1) takes the central square."""
        crop_ratio: tuple[float, float] = (1.0, 1.0)
        """Least and greatest width of the crop divided by its height; SimCLR and DINO take (0.75, 1.3333)."""
        flip: float = 0.0
        """Probability of mirroring left and right, 0 to 1. Words like "left of" no longer hold in a mirrored view."""
        jitter: float = 0.0
        """Probability of changing the colors, 0 to 1; SimCLR, BYOL and DINO take 0.8."""
        brightness: float = 0.4
        """Brightness is multiplied by 1 - this to 1 + this, if the colors change (DINO, arXiv 2104.14294)."""
        contrast: float = 0.4
        """The distance from the mean gray is multiplied by 1 - this to 1 + this, if the colors change."""
        saturation: float = 0.2
        """The distance from the pixel's gray is multiplied by 1 - this to 1 + this, if the colors change."""
        hue: float = 0.1
        """The hue is turned by up to this share of the circle, 0 to 0.5, if the colors change."""
        grayscale: float = 0.0
        """Probability of dropping the color, 0 to 1; SimCLR, BYOL and DINO take 0.2."""
        blur: float = 0.0
        """Probability of a Gaussian blur, 0 to 1; SimCLR takes 0.5, BYOL and DINO 1.0 and 0.1 for their two views."""
        blur_sigma: tuple[float, float] = (0.1, 2.0)
        """Least and greatest standard deviation of the blur, in pixels of the view (SimCLR, arXiv 2002.05709)."""
        solarize: float = 0.0
        """Probability of inverting the bright half, 0 to 1; BYOL and DINO take 0.2 for one of their two views."""
        noise: float = 0.0
        """Probability of Gaussian noise, 0 to 1. A network that never saw any is blinded by little of it, and asked to
        draw it draws grain (arXiv 1901.10513; docs/ascend.md)."""
        noise_sigma: tuple[float, float] = (0.01, 0.1)
        """Least and greatest standard deviation of the noise, as a share of white."""

    def __init__(self, settings: Settings):
        _check(settings)
        self.settings = settings

    def __call__(self, image: Pixels, random: np.random.Generator) -> tuple[Square, Crop, bool]:
        """The view [size, size, 3]; its crop (left, top, right, bottom) as shares of the image; whether mirrored."""
        settings = self.settings
        draws = random.random(_DRAWS).tolist()
        rectangles, (flip, jitter, *strengths), (gray, blur, sigma, solarize) = (
            draws[: 4 * _ATTEMPTS],
            draws[4 * _ATTEMPTS : -4],
            draws[-4:],
        )
        height, width = image.shape[:2]
        left, top, right, bottom = _rectangle(height, width, settings, rectangles)
        pixels = _resize(image[top:bottom, left:right], settings.size)
        flipped = flip < settings.flip
        if flipped:
            pixels = cv2.flip(pixels, 1)
        if jitter < settings.jitter:
            pixels = _jitter(pixels, settings, strengths)
        if gray < settings.grayscale:
            pixels = to_grayscale(pixels)
        if blur < settings.blur:
            low, high = settings.blur_sigma
            pixels = gaussian_blur(pixels, low + sigma * (high - low))
        if solarize < settings.solarize:
            pixels = invert_bright(pixels)
        if settings.noise > 0:
            # From a generator of its own, seeded by the last draw: more draws would change what the next view is.
            own = np.random.default_rng(int(solarize * 2**53))
            if own.random() < settings.noise:
                low, high = settings.noise_sigma
                pixels = add_noise(pixels, low + own.random() * (high - low), own)
        return pixels, (left / width, top / height, right / width, bottom / height), flipped


Augmentation = Literal["crop", "flip", "jitter", "grayscale", "blur", "solarize", "noise"]
"""One of the changes that a view makes."""
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)
"""All of them, in the order in which they are made."""


def only(settings: View.Settings, names: Sequence[Augmentation]) -> View.Settings:
    """The view with the augmentations that stand in `kept` alone: what an experiment leaves out."""
    unknown = [name for name in names if name not in AUGMENTATIONS]
    if unknown:
        raise RizbinError(f"There is no augmentation {unknown[0]!r}; there are {', '.join(AUGMENTATIONS)}.")
    off: dict[str, Any] = {name: 0.0 for name in AUGMENTATIONS if name not in names and name != "crop"}
    if "crop" not in names:
        off |= {"crop_area": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
    return replace(settings, **off)


ViewSpec = tuple[View.Settings, ...]
"""The views that a method wants of each image."""


def whole(image: Pixels, size: int) -> Square:
    """The image as evaluation sees it: its central square, resized to `size` (area shrinking, bicubic growing)."""
    height, width = image.shape[:2]
    left, top, right, bottom = _central(height, width, 1.0)
    return _resize(image[top:bottom, left:right], size)


def normalize(images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 height width"]:
    """Pixels from 0 to 255, channels last, as float32 with ImageNet's mean 0 and deviation 1, channels first."""
    mean = torch.tensor(MEAN, device=images.device)[:, None, None] * 255
    scale = 1 / (torch.tensor(STD, device=images.device)[:, None, None] * 255)
    values = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return values.sub_(mean).mul_(scale)


def denormalize(images: Float[Tensor, "batch 3 height width"]) -> UInt8[Tensor, "batch height width 3"]:
    """The inverse of `normalize`, rounded and cut to 0 to 255."""
    mean = torch.tensor(MEAN, device=images.device)[:, None, None]
    std = torch.tensor(STD, device=images.device)[:, None, None]
    values = (images.float() * std + mean) * 255
    return values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def change_brightness(image: Pixels, factor: float) -> Pixels:
    """Every value times `factor`, cut to 0 to 255."""
    return cv2.LUT(image, _table(lambda value: value * factor))


def change_contrast(image: Pixels, factor: float) -> Pixels:
    """Every value moved away from the image's mean gray by `factor`."""
    mean = float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean())
    return cv2.LUT(image, _table(lambda value: mean + (value - mean) * factor))


def change_saturation(image: Pixels, factor: float) -> Pixels:
    """Every pixel moved away from its own gray by `factor`."""
    gray = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as torchvision and OpenCV
    matrix = factor * np.eye(3, dtype=np.float32) + (1 - factor) * gray[None, :]
    return cv2.transform(image, matrix)


def turn_hue(image: Pixels, turn: float) -> Pixels:
    """The hue turned by `turn` of the circle, -0.5 to 0.5. Float inside: OpenCV's 8-bit hue is too coarse."""
    colors = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV)
    hue = colors[..., 0]
    hue += 360 * turn
    if turn < 0:
        np.add(hue, 360, out=hue, where=hue < 0)
    else:
        np.subtract(hue, 360, out=hue, where=hue >= 360)
    return cv2.convertScaleAbs(cv2.cvtColor(colors, cv2.COLOR_HSV2RGB))


def to_grayscale(image: Pixels) -> Pixels:
    """The image without color, still three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def gaussian_blur(image: Pixels, sigma: float) -> Pixels:
    """The image under a Gaussian of `sigma` pixels; the border is mirrored."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def invert_bright(image: Pixels) -> Pixels:
    """The image with all values from 128 on inverted (solarized)."""
    return cv2.LUT(image, _SOLARIZED)


def add_noise(image: Pixels, sigma: float, random: np.random.Generator) -> Pixels:
    """Gaussian noise of deviation `sigma`, a share of white, of its own for each value; cut to 0 to 255."""
    noise = random.standard_normal(image.shape, np.float32)
    return np.rint(np.clip(image + noise * np.float32(255 * sigma), 0, 255)).astype(np.uint8)


def _table(function: Callable[[np.ndarray], np.ndarray]) -> UInt8[np.ndarray, "256"]:
    return np.rint(function(_LEVELS).clip(0, 255)).astype(np.uint8)


_LEVELS = np.arange(256, dtype=np.float32)
_SOLARIZED = _table(lambda value: np.where(value >= _SOLARIZE_FROM, 255 - value, value))


def _jitter(image: Pixels, settings: View.Settings, draws: list[float]) -> Pixels:
    """The four color changes in random order; `draws` holds four strengths, then four sort keys."""
    steps = (
        (change_brightness, 1 + settings.brightness * (2 * draws[0] - 1), settings.brightness),
        (change_contrast, 1 + settings.contrast * (2 * draws[1] - 1), settings.contrast),
        (change_saturation, 1 + settings.saturation * (2 * draws[2] - 1), settings.saturation),
        (turn_hue, settings.hue * (2 * draws[3] - 1), settings.hue),
    )
    for which in sorted(range(4), key=lambda step: draws[4 + step]):
        change, amount, strength = steps[which]
        if strength > 0:
            image = change(image, amount)
    return image


def _rectangle(height: int, width: int, settings: View.Settings, draws: list[float]) -> tuple[int, int, int, int]:
    """A random crop (left, top, right, bottom) in pixels, right and bottom exclusive."""
    (least, most), (narrow, wide) = settings.crop_area, settings.crop_ratio
    if least < 1:
        for attempt in range(_ATTEMPTS):
            area, ratio, across, down = draws[4 * attempt : 4 * attempt + 4]
            area = (least + area * (most - least)) * height * width
            ratio = math.exp(math.log(narrow) + ratio * math.log(wide / narrow))
            crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                left, top = int(across * (width - crop_width + 1)), int(down * (height - crop_height + 1))
                return left, top, left + crop_width, top + crop_height
    return _central(height, width, min(max(width / height, narrow), wide))


def _central(height: int, width: int, ratio: float) -> tuple[int, int, int, int]:
    """The largest central crop whose width is `ratio` times its height."""
    crop_width = max(1, min(width, round(height * ratio)))
    crop_height = max(1, min(height, round(width / ratio)))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def _resize(image: Pixels, size: int) -> Square:
    """Area averages when shrinking, so that fine detail does not alias; bicubic when growing."""
    shrinks = min(image.shape[:2]) >= size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _check(settings: View.Settings) -> None:
    """Refuses settings that no view can be made with."""
    if settings.size < 1:
        raise RizbinError(f"a view's size is {settings.size} pixels; give at least 1.")
    for name in ("flip", "jitter", "grayscale", "blur", "solarize", "noise"):
        if not 0 <= (value := getattr(settings, name)) <= 1:
            raise RizbinError(f"a view's {name} is {value}; it is a probability, so give 0 to 1.")
    for name, limit in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5)):
        if not 0 <= (value := getattr(settings, name)) <= limit:
            raise RizbinError(f"a view's {name} is {value}; give 0 to {limit}.")
    for name, limit in (("crop_area", 1.0), ("crop_ratio", math.inf), ("blur_sigma", math.inf), ("noise_sigma", 1.0)):
        low, high = getattr(settings, name)
        if not 0 < low <= high <= limit:
            raise RizbinError(f"a view's {name} is ({low}, {high}); give two rising numbers over 0, up to {limit}.")
