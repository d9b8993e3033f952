"""Procedural textures: what objects are covered with, and grounds that look like grass, bark, gravel, water or fabric.

All are made once for a side and then looked at through a window whose place a scene chooses, so that a scene pays for a
copy and not for a field. Lengths are shares of the image's side: an image of twice the side shows the same texture
twice as large.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Int32

from rizbin.core.random import generator

FINEST = 96
"""Side at which the finest texture is one pixel wide; larger images enlarge it, smaller ones keep one pixel."""

VARIANTS = 3
"""Fields of each cover, with angles and scales of their own."""

_SPAN = 2  # Fields are this many times the image's side, so that windows of a whole image have room to move.

Field = Float32[np.ndarray, "span span"]


class Cover(NamedTuple):
    """A texture for objects, on a square field."""

    tone: Field
    """Brightness to add, as a share of the color: about -1 to 1, mean near 0."""
    across: Field
    """Offset to the middle of the leaf that covers a pixel, pixels; 0 where there are no leaves."""
    down: Field
    """The same, vertically."""


@lru_cache(maxsize=64)
def cover(kind: str, variant: int, side: int) -> Cover:
    """The field of one of the `COVERS` for images of `side` pixels."""
    random = generator("scenes", "cover", kind, variant)
    x, y = _coordinates(side)
    scale = (0.85, 1.0, 1.25)[variant] * max(side, 48)
    return _COVERS[kind](x, y, scale, random)


@lru_cache(maxsize=8)
def noise(side: int) -> Field:
    """White noise of deviation 1, its grain one pixel at `FINEST` and proportionally more in larger images."""
    span = _SPAN * side
    cells = min(span, _SPAN * FINEST)
    values = generator("scenes", "noise").standard_normal((cells, cells), np.float32)
    if cells < span:
        values = cv2.resize(values, (span, span), interpolation=cv2.INTER_CUBIC)
    return values


@lru_cache(maxsize=32)
def ground(kind: str, side: int) -> Field:
    """The field of one of the `GROUNDS` for images of `side` pixels, 0 (dark) to 1 (bright)."""
    field = _GROUNDS[kind](side, generator("scenes", "ground", kind))
    low, high = np.percentile(field, (1, 99))
    return np.clip((field - low) / (high - low), 0, 1).astype(np.float32)


def window(field: Field, height: int, width: int, across: float, down: float) -> Float32[np.ndarray, "height width"]:
    """A view of `field`, its corner chosen by two numbers from 0 to 1."""
    top, left = int(down * (len(field) - height + 1)), int(across * (field.shape[1] - width + 1))
    return field[top : top + height, left : left + width]


def _coordinates(side: int) -> tuple[Field, Field]:
    line = np.arange(_SPAN * side, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def _turned(x: Field, y: Field, degrees: float) -> tuple[Field, Field]:
    cosine, sine = np.float32(math.cos(math.radians(degrees))), np.float32(math.sin(math.radians(degrees)))
    return x * cosine + y * sine, y * cosine - x * sine


def _foliage(x: Field, y: Field, scale: float, random: np.random.Generator) -> Cover:
    """Leaves over leaves, each of a tone of its own, bright along the midrib and dark at the rim."""
    span = len(x)
    long = 0.045 * scale
    count = int(4.5 * (span / long) ** 2)
    centers = random.uniform(-long, span + long, (count, 2)).astype(np.float32)
    angles = random.uniform(0, 2 * math.pi, count).astype(np.float32)
    lengths = (long * random.uniform(0.7, 1.2, count)).astype(np.float32)
    tones = random.uniform(-0.6, 0.5, count).astype(np.float32)
    steps = np.linspace(0, 2 * math.pi, 12, endpoint=False)
    # Two arcs that meet in tips.
    outline = np.stack([np.cos(steps), 0.45 * np.sin(steps) * np.abs(np.sin(steps)) ** 0.3], axis=1)
    owner: Int32[np.ndarray, "span span"] = np.full((span, span), -1, np.int32)
    for number in range(count):
        cosine, sine = math.cos(angles[number]), math.sin(angles[number])
        points = outline @ np.array([[cosine, sine], [-sine, cosine]]) * lengths[number] + centers[number]
        cv2.fillConvexPoly(owner, np.rint(points * 16).astype(np.int32), number, cv2.LINE_8, 4)
    owner = np.where(owner < 0, 0, owner)
    across, down = centers[owner, 0] - x, centers[owner, 1] - y
    cosine, sine = np.cos(angles[owner]), np.sin(angles[owner])
    along = -(across * cosine + down * sine) / lengths[owner]
    aside = np.abs((down * cosine - across * sine) / lengths[owner]) / np.float32(0.45)
    tone = tones[owner] + np.float32(0.25) * along - np.float32(0.45) * np.square(np.minimum(aside, 1))
    reach = np.float32(2 * long)
    return Cover(np.clip(tone + np.float32(0.1), -1, 1), np.clip(across, -reach, reach), np.clip(down, -reach, reach))


def _scales(x: Field, y: Field, scale: float, random: np.random.Generator) -> Cover:
    """Rows of overlapping scales, as on a fish or a roof."""
    x, y = _turned(x, y, random.uniform(-40, 40))
    wide = np.float32(max(4.0, 0.05 * scale))
    high = wide * np.float32(0.6)
    row = np.floor(y / high)
    tone = np.zeros_like(x)
    covered = np.zeros(x.shape, bool)
    for above in (0, 1, 2):  # a scale hangs over the rows below it; the one that begins highest lies on top
        k = row - 2 + above
        offset = np.float32(0.5) * (k % 2)
        middle = (np.floor(x / wide - offset) + np.float32(0.5) + offset) * wide
        distance = np.hypot(x - middle, y - (k + 1) * high) / (wide * np.float32(0.75))
        fresh = (distance < 1) & ~covered
        tone[fresh] = np.float32(0.5) - np.float32(1.3) * distance[fresh] ** 3
        covered |= fresh
    return Cover(np.clip(tone, -1, 1), np.zeros_like(x), np.zeros_like(x))


def _knit(x: Field, y: Field, scale: float, random: np.random.Generator) -> Cover:
    """Columns of V-shaped stitches."""
    x, y = _turned(x, y, random.uniform(-25, 25))
    wide, high = np.float32(max(4.0, 0.05 * scale)), np.float32(max(3.0, 0.036 * scale))
    half = np.abs(x / wide - np.floor(x / wide) - np.float32(0.5)) * 2  # 0 in the middle of a stitch, 1 between two
    yarn = np.cos((y / high + half * np.float32(0.75)) * np.float32(2 * math.pi))
    seam = np.minimum(half, 1 - half) * 2  # the middle of a stitch and the gap between two lie deep
    return Cover(
        np.clip(np.float32(0.45) * yarn + np.float32(0.6) * seam - np.float32(0.4), -1, 1),
        np.zeros_like(x),
        np.zeros_like(x),
    )


_COVERS: dict[str, Callable[[Field, Field, float, np.random.Generator], Cover]] = {
    "foliage": _foliage,
    "scales": _scales,
    "knit": _knit,
}

COVERS: tuple[str, ...] = tuple(_COVERS)
"""Textures of objects that are fields; fur follows each object's shape and so is made for it (`detail.py`)."""


def _streaks(side: int, random: np.random.Generator, wide: float, high: float) -> Field:
    """Noise drawn out vertically; deviations in shares of the side."""
    span = _SPAN * side
    values = random.standard_normal((span, span), np.float32)
    values = cv2.GaussianBlur(values, (0, 0), sigmaX=max(0.5, wide * side), sigmaY=max(0.5, high * side))
    return values / values.std()


def _warped(field: Field, random: np.random.Generator, cells: int, reach: float) -> Field:
    """The field pushed about by smooth noise of `cells` cells, up to about `reach` pixels."""
    span = len(field)
    line = np.arange(span, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    pushes = [
        cv2.resize(random.standard_normal((cells, cells), np.float32), (span, span), interpolation=cv2.INTER_CUBIC)
        for _ in range(2)
    ]
    return cv2.remap(
        field, x + np.float32(reach) * pushes[0], y + np.float32(reach) * pushes[1], cv2.INTER_LINEAR, None,
        cv2.BORDER_REFLECT,
    )  # fmt: skip


def _grass(side: int, random: np.random.Generator) -> Field:
    """Blades that lean this way and that, the brightest in front."""
    span = _SPAN * side
    blades = []
    for lean in (-0.45, -0.15, 0.1, 0.4):
        shear = np.array([[1, lean, -lean * span / 2], [0, 1, 0]], np.float32)
        streaks = _streaks(side, random, 0.0055, 0.045)
        blades.append(cv2.warpAffine(streaks, shear, (span, span), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))
    return np.max(blades, axis=0)


def _bark(side: int, random: np.random.Generator) -> Field:
    """Long plates with dark furrows between them."""
    plates = _warped(_streaks(side, random, 0.018, 0.11), random, 12, 0.03 * side)
    return np.sqrt(np.abs(plates)) + np.float32(0.12) * _streaks(side, random, 0.006, 0.03)


def _gravel(side: int, random: np.random.Generator) -> Field:
    """Stones of tones of their own, lit from above, with dark gaps."""
    span = _SPAN * side
    count = int((span / (0.065 * side)) ** 2)
    away = np.full((span, span), 255, np.uint8)
    points = random.integers(0, span, (count, 2))
    away[points[:, 0], points[:, 1]] = 0
    _, stone = cv2.distanceTransformWithLabels(away, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    tones = random.uniform(0, 1, count + 1).astype(np.float32)[np.asarray(stone, np.int32)]
    gaps = cv2.morphologyEx(stone.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    inside = cv2.distanceTransform((~gaps).astype(np.uint8), cv2.DIST_L2, 3)
    rounded = np.minimum(inside / np.float32(0.02 * side), 1)
    light = cv2.Sobel(rounded, cv2.CV_32F, 0, 1, ksize=3)
    return np.float32(0.6) * tones + np.float32(0.8) * rounded + np.float32(0.15) * light


def _water(side: int, random: np.random.Generator) -> Field:
    """Ripples, mostly flat, with bright crests."""
    x, y = _coordinates(side)
    total = np.zeros_like(x)
    for _ in range(6):
        angle, period = random.uniform(-0.35, 0.35), side * random.uniform(0.05, 0.14)
        phase = (x * np.float32(math.sin(angle)) + y * np.float32(math.cos(angle))) * np.float32(2 * math.pi / period)
        total += np.sin(phase + np.float32(random.uniform(0, 2 * math.pi)))
    total = _warped(total, random, 16, 0.035 * side) / 6
    return np.exp(np.float32(2.2) * total)


def _fabric(side: int, random: np.random.Generator) -> Field:
    """Threads over and under each other."""
    x, y = _coordinates(side)
    x, y = _turned(x, y, random.uniform(10, 35))
    wide = np.float32(max(2.5, 0.03 * side))
    column, row = np.floor(x / wide), np.floor(y / wide)
    over = (column + row) % 2 == 0
    across, down = np.sin((x / wide - column) * np.float32(math.pi)), np.sin((y / wide - row) * np.float32(math.pi))
    woven = np.where(over, np.float32(0.35) + np.float32(0.65) * across, np.float32(0.7) * down)
    return woven + np.float32(0.1) * _streaks(side, random, 0.004, 0.004)


_GROUNDS: dict[str, Callable[[int, np.random.Generator], Field]] = {
    "grass": _grass,
    "bark": _bark,
    "gravel": _gravel,
    "water": _water,
    "fabric": _fabric,
}

GROUNDS: tuple[str, ...] = tuple(_GROUNDS)
"""Grounds with a texture that real ones have."""
