"""Numbers of images that were made, to lay beside those of real ones: spectrum, variation, and what harms them."""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from rizbin.core.random import generator

Still = UInt8[np.ndarray, "_ _ 3"]


def spectrum_slope(still: Still) -> float:
    """The slope of the logarithm of power over the logarithm of frequency; photographs have about -2.

    Of the gray image under a Hann window (without one, opposite edges that differ look like fine detail), mean power
    over rings one cycle an image wide, from the third to half the image's resolution.
    """
    gray = still.mean(axis=-1) / 255
    height, width = gray.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    power = np.abs(np.fft.fft2((gray - gray.mean()) * window)) ** 2
    down, across = np.fft.fftfreq(height) * height, np.fft.fftfreq(width) * width
    ring = np.hypot(down[:, None], across[None]).round().astype(int)
    rings = np.arange(3, min(height, width) // 2)
    mean = np.array([power[ring == radius].mean() for radius in rings]) + 1e-12
    return float(np.polyfit(np.log(rings), np.log(mean), 1)[0])


def total_variation(still: Still) -> float:
    """The mean difference of neighboring pixels, both ways, values 0 to 1."""
    values = still.astype(np.float64) / 255
    return float((np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean()) / 2)


def jpeg(still: Still) -> Still:
    """Written as a JPEG of quality 75 and read again."""
    _, data = cv2.imencode(".jpg", still[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1]).astype(np.uint8)


def blurred(still: Still) -> Still:
    """The image blurred by a Gaussian with a standard deviation of one pixel."""
    return np.asarray(cv2.GaussianBlur(still, (0, 0), 1.0), np.uint8)


def resized(still: Still) -> Still:
    """Halved and enlarged again."""
    height, width = still.shape[:2]
    small = cv2.resize(still, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def noisy(still: Still) -> Still:
    """The image with Gaussian noise of 5 percent, the same in every call."""
    noise = generator("stills").normal(0, 0.05 * 255, still.shape)
    return np.clip(np.rint(still + noise), 0, 255).astype(np.uint8)


def cropped(still: Still) -> Still:
    """The middle nine tenths of its sides, enlarged to the old ones."""
    height, width = still.shape[:2]
    top, left = height // 20, width // 20
    middle = still[top : height - top, left : width - left]
    return np.asarray(cv2.resize(middle, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def faint(still: Still) -> Still:
    """At half its contrast, around its mean."""
    mean = still.mean()
    return np.rint(mean + (still - mean) / 2).astype(np.uint8)


HARMS: dict[str, Callable[[Still], Still]] = {
    "JPEG 75": jpeg,
    "blur": blurred,
    "half size": resized,
    "noise": noisy,
    "crop": cropped,
    "half contrast": faint,
}
"""What an image that shows something survives, and a pattern that fools one network does not."""


def coarse_likeness(first: Still, other: Still, side: int = 8) -> float:
    """The correlation of two images, each averaged to `side` squares across: 1 where places and colors agree.

    0 where one of them is of one color, -1 where all is reversed.
    """
    shrunk = [cv2.resize(still, (side, side), interpolation=cv2.INTER_AREA) for still in (first, other)]
    small = [np.asarray(still, np.float64) for still in shrunk]
    values: list[Float[np.ndarray, " values"]] = [(part - part.mean(axis=(0, 1))).ravel() for part in small]
    length = float(np.linalg.norm(values[0]) * np.linalg.norm(values[1]))
    return float(values[0] @ values[1]) / length if length > 0 else 0.0
