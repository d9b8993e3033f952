"""Colors that mean something: a heat scale whose lightness rises evenly, and colors that are told apart at a glance."""

import colorsys

import cv2
import numpy as np
from jaxtyping import Float, UInt8

SizedImage = UInt8[np.ndarray, "height width 3"]
"""RGB; all images of one call have one size."""
AnySizeImage = UInt8[np.ndarray, "_ _ 3"]
"""RGB of a size of its own."""
Color = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

# Seventeen steps along a line in OKLab (B. Ottosson, 2020): lightness 0.10 to 0.97 in equal steps, hue from violet over
# red and orange to pale yellow, chroma as high as sRGB holds. Equal steps of value look like equal steps, in print
# without color too.
_HEAT = np.array(
    [
        (3, 1, 19), (17, 0, 42), (37, 0, 61), (61, 1, 74), (87, 0, 84), (114, 0, 88), (143, 0, 88), (172, 1, 82),
        (203, 1, 67), (224, 44, 47), (238, 80, 22), (246, 113, 2), (249, 145, 37), (248, 175, 79), (244, 203, 126),
        (241, 227, 178), (250, 248, 209),
    ]
)  # fmt: skip

# Twelve colors that people tell apart and name differently (after S. Trubetskoy's list); neighbours in the list are far
# from each other for color-blind readers too.
_DISTINCT: tuple[Color, ...] = (
    (245, 130, 49), (67, 99, 216), (60, 180, 75), (240, 50, 230), (255, 225, 25), (66, 212, 244),
    (230, 25, 75), (145, 30, 180), (191, 239, 69), (70, 153, 144), (154, 99, 36), (250, 190, 212),
)  # fmt: skip


def heat(values: Float[np.ndarray, "height width"]) -> SizedImage:
    """The heat colors of values from 0 (nearly black) to 1 (nearly white); the rest is cut, NaN counts as 0."""
    places = np.nan_to_num(values).clip(0, 1) * (len(_HEAT) - 1)
    steps = np.arange(len(_HEAT))
    return np.stack([np.interp(places, steps, _HEAT[:, part]) for part in range(3)], axis=-1).round().astype(np.uint8)


def distinct(count: int) -> list[Color]:
    """That many colors, each different from the others; the first twelve are easy to name."""
    colors = list(_DISTINCT[:count])
    for index in range(len(_DISTINCT), count):
        # The golden angle spreads any number of hues evenly; lightness alternates so that near hues differ too.
        red, green, blue = colorsys.hls_to_rgb(index * 0.618034 % 1, (0.35, 0.55, 0.72)[index % 3], 0.75)
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colors


def ink_on(color: Color) -> Color:
    """Black or white, whichever is read more easily on the color (contrast as in WCAG 2.2, section 1.4.3)."""
    linear = [(part / 255 / 12.92) if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 0.05 * 1.05 else (255, 255, 255)


def blend(image: SizedImage, colors: SizedImage, share: Float[np.ndarray, "height width"]) -> SizedImage:
    """The image with `share` (0 to 1, a pixel) of each color laid over it."""
    weight = share.clip(0, 1)[..., None]
    return (image * (1 - weight) + colors * weight).round().astype(np.uint8)


def scaled(values: Float[np.ndarray, "*shape"], low: float = 1.0, high: float = 99.0) -> Float[np.ndarray, "*shape"]:
    """Values brought to 0 to 1 between two percentiles, so that one outlier does not make the rest black.

    All zeros where the two percentiles are equal. Values that are not finite count as the lowest.
    """
    known = values[np.isfinite(values)]
    if known.size == 0:
        return np.zeros(values.shape, np.float64)
    bottom, top = np.percentile(known, (low, high))
    spread = float(top - bottom)
    if spread <= 1e-12 * max(1.0, abs(float(top))):
        return np.zeros(values.shape, np.float64)
    filled = np.where(np.isfinite(values), values, bottom).astype(np.float64)
    return ((filled - bottom) / spread).clip(0, 1)


def stretched(
    values: Float[np.ndarray, "rows columns"], height: int, width: int, *, smooth: bool = True
) -> Float[np.ndarray, "{height} {width}"]:
    """A map of patches at an image's size: bicubic, or each patch a flat block."""
    how = cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST
    return cv2.resize(values.astype(np.float32), (width, height), interpolation=how).astype(np.float64)
