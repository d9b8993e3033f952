"""Detail for flat drawings: fur, leaves, scales, stitches, and thin lines that belong to the object.

Everything happens to the drawing's own pixels (color multiplied by alpha) before it is placed, so that its exact mask
follows whatever fur or leaves do to its silhouette.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from rizbin.data.scenes.sprites import VISIBLE
from rizbin.data.scenes.textures import FINEST, VARIANTS, cover, noise, window

Pixels = UInt8[np.ndarray, "_ _ 4"]
"""RGBA, color multiplied by alpha; what is done to it may change its height and width."""

_STRAND = 0.05  # Longest strand of fur, share of the image's side ...
_STRAND_OF_OBJECT = 0.14  # ... and of the object's longer side: a small object is not all fur.
_INSIDE = 0.35  # How far fur and leaves push what lies inside the drawing, share of what they do to its silhouette.


@dataclass(frozen=True, kw_only=True)
class Detail:
    """What a preset does to its objects."""

    textures: tuple[str, ...]
    """Textures of objects, equally likely: none, fur, foliage, scales, knit. One may stand here more than once."""
    outlined: float
    """Share of objects that are line drawings: black lines alone, without anything between them."""
    shortest_outlined: float
    """Least longer side of a line drawing, share of the image's side: smaller, its lines would be below a pixel."""
    attached: float
    """Share of the others with whiskers, twigs or antennae of one or two pixels."""
    tiny: float
    """Share of objects smaller than the preset's `sides`."""
    tiniest: float
    """Least longer side of these, share of the image's side."""
    largest_distractor: float
    """Greatest longer side of a distractor, share of the image's side."""


class Finish(NamedTuple):
    """What one object is given; chosen once, so that trying another size changes nothing else."""

    texture: str
    lines: int
    """Thin lines attached to it."""
    numbers: tuple[float, ...]
    """From 0 to 1, for everything that is left to chance."""


_NUMBERS = 24


def choose_finish(detail: Detail, outlined: bool, random: np.random.Generator) -> Finish:
    """Texture and attached lines of one object. Draws the same count of numbers whatever comes out."""
    numbers = random.random(_NUMBERS).tolist()
    texture = detail.textures[int(numbers[0] * len(detail.textures))]
    lines = 1 + int(numbers[1] * 6) if numbers[2] < detail.attached else 0
    return Finish("outline" if outlined else texture, 0 if outlined else lines, tuple(numbers[3:]))


def apply_finish(pixels: Pixels, finish: Finish, side: int) -> Pixels:
    """The drawing with its texture and lines, cut to what can be seen; for an image of `side` pixels."""
    if finish.texture == "outline":
        pixels = _inked(pixels, finish.numbers)
    elif finish.texture == "fur":
        pixels = _furry(pixels, finish.numbers, side)
    elif finish.texture != "none":
        pixels = _covered(pixels, finish.texture, finish.numbers, side)
    if finish.lines:
        pixels = _with_lines(pixels, finish.lines, finish.numbers, side)
    return _cut(pixels, side)


def _cut(pixels: Pixels, side: int) -> Pixels:
    """Without empty margins, and never larger than the image."""
    columns, rows = (cv2.reduce(pixels[..., 3], axis, cv2.REDUCE_MAX).ravel().nonzero()[0] for axis in (0, 1))
    if not len(rows):
        return pixels[:1, :1]
    top, left = int(rows[0]), int(columns[0])
    return pixels[top : min(int(rows[-1]) + 1, top + side), left : min(int(columns[-1]) + 1, left + side)]


def _inked(pixels: Pixels, numbers: tuple[float, ...]) -> Pixels:
    """Line drawings in a dark ink of their own; lines are strengthened, as shrinking has made them faint."""
    alpha = cv2.convertScaleAbs(pixels[..., 3], alpha=1.7)
    ink = [int(80 * number) for number in numbers[4:7]]
    colors = [cv2.convertScaleAbs(alpha, alpha=value / 255) for value in ink]
    return cv2.merge([*colors, alpha])


def _furry(pixels: Pixels, numbers: tuple[float, ...], side: int) -> Pixels:
    """Fur that grows from the middle outward and leans to one side, over the silhouette too.

    Noise is drawn out along the direction of growth (line integral convolution, Cabral & Leedom 1993, by three
    doublings); each strand then carries the color and the alpha of its root to its tip.
    """
    length = max(pixels.shape[:2])
    strand = min(_STRAND * side, _STRAND_OF_OBJECT * length) * (0.7 + 0.6 * numbers[0])
    margin = math.ceil(strand) + 1
    pixels = cv2.copyMakeBorder(pixels, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    height, width = pixels.shape[:2]
    soft = cv2.GaussianBlur(pixels[..., 3].astype(np.float32), (0, 0), 0.12 * length + 0.5)
    across, down = -cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3), -cv2.Sobel(soft, cv2.CV_32F, 0, 1, ksize=3)
    steep = float(cv2.magnitude(across, down).max()) + 1e-6
    angle = math.pi * (0.15 + 0.7 * numbers[1])  # mostly downward, as fur hangs
    across += np.float32(0.3 * steep * math.cos(angle))
    down += np.float32(0.3 * steep * math.sin(angle))
    scale = 1 / (cv2.magnitude(across, down) + np.float32(1e-6))
    across *= scale
    down *= scale
    x, y = _grid(height, width)
    streaks = window(noise(side), height, width, numbers[2], numbers[3])
    step = np.float32(max(1.0, strand / 5))
    for doubling in (1, 2, 4):
        moved = cv2.remap(streaks, x - across * (step * doubling), y - down * (step * doubling), cv2.INTER_LINEAR,
                          None, cv2.BORDER_REFLECT)  # fmt: skip
        streaks = cv2.addWeighted(streaks, 0.5, moved, 0.5, 0)
    streaks = np.clip(streaks * np.float32(1.15), -1, 1)  # its deviation is near 0.4
    reach = (streaks + np.float32(1)) * np.float32(strand / 2) * _give(pixels)
    pixels = cv2.remap(pixels, x - across * reach, y - down * reach, cv2.INTER_LINEAR, None, cv2.BORDER_CONSTANT, 0)
    return _shaded(pixels, streaks, 0.35 + 0.25 * numbers[4])


def _covered(pixels: Pixels, kind: str, numbers: tuple[float, ...], side: int) -> Pixels:
    """Leaves, scales or stitches; a leaf carries the color and the alpha from its middle, so it breaks the outline."""
    field = cover(kind, int(numbers[0] * VARIANTS), side)
    margin = math.ceil(0.06 * side) if kind == "foliage" else 0
    if margin:
        pixels = cv2.copyMakeBorder(pixels, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    height, width = pixels.shape[:2]
    if margin:
        # A leaf's share of a small object would be all of it.
        pull = np.float32(0.85 * min(1.0, max(height, width) / (0.35 * side))) * _give(pixels)
        x, y = _grid(height, width)
        across = window(field.across, height, width, numbers[2], numbers[3])
        down = window(field.down, height, width, numbers[2], numbers[3])
        pixels = cv2.remap(pixels, x + pull * across, y + pull * down, cv2.INTER_LINEAR, None, cv2.BORDER_CONSTANT, 0)
    tone = window(field.tone, height, width, numbers[2], numbers[3])
    return _shaded(pixels, tone, (0.6 if margin else 0.45) + 0.25 * numbers[4])


def _give(pixels: UInt8[np.ndarray, "height width 4"]) -> Float32[np.ndarray, "height width"]:
    """1 outside the drawing and less inside, where its marks must stay recognizable."""
    return np.float32(1) - np.float32((1 - _INSIDE) / 255) * pixels[..., 3]


def _shaded(
    pixels: UInt8[np.ndarray, "height width 4"], tone: Float32[np.ndarray, "height width"], gain: float
) -> UInt8[np.ndarray, "height width 4"]:
    """Colors brighter by `gain` times `tone`; never above alpha, by which they are multiplied."""
    alpha = pixels[..., 3]
    light = cv2.merge([cv2.convertScaleAbs(tone, alpha=100 * gain, beta=128)] * 3)
    # Value times light / 128, rounded, in one pass.
    colors = cv2.multiply(np.ascontiguousarray(pixels[..., :3]), light, scale=1 / 128)
    return cv2.merge([*cv2.split(cv2.min(colors, cv2.merge([alpha] * 3))), alpha])


def _with_lines(pixels: Pixels, count: int, numbers: tuple[float, ...], side: int) -> Pixels:
    """Whiskers (many, straight), twigs (forked) or antennae (few, curved), from inside the object outward."""
    length = max(pixels.shape[:2])
    reach = min(0.22 * side, 0.6 * length) * (0.6 + 0.4 * numbers[5])
    margin = math.ceil(reach) + 2
    pixels = cv2.copyMakeBorder(pixels, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    rows, columns = np.nonzero(pixels[..., 3] >= VISIBLE)
    if not len(rows):
        return pixels
    thick = max(1, round(side / FINEST))
    ink = (*(int(70 * number) for number in numbers[6:9]), 255)
    first, spread = 2 * math.pi * numbers[9], 0.35 + 0.5 * numbers[10]
    x, y = columns - columns.mean(), rows - rows.mean()
    distances = np.hypot(x, y) + 1e-6
    for number in range(count):
        # Alternately on one side and on the other, a fan on each.
        angle = first + math.pi * (number % 2) + spread * (number // 2 - (count - 1) // 4)
        cosine, sine = math.cos(angle), math.sin(angle)
        # The farthest pixel within about 10 degrees of this direction is where the silhouette ends.
        near = np.flatnonzero(x * cosine + y * sine >= 0.985 * distances)
        if not len(near):
            continue
        root = near[distances[near].argmax()]
        start = np.array([columns[root] - 2 * cosine, rows[root] - 2 * sine])
        bend = (numbers[11 + number] - 0.5) * 1.6
        steps = np.linspace(0, 1, 6)
        turned = angle + bend * steps
        points = start + reach * np.cumsum(np.stack([np.cos(turned), np.sin(turned)], 1), 0) / len(steps)
        lines = [np.vstack([start, points])]
        if count <= 2:  # a twig: one fork on each side
            for sign, place in ((1, 1), (-1, 3)):
                fork = turned[place] + sign * 0.7
                end = points[place] + 0.35 * reach * np.array([math.cos(fork), math.sin(fork)])
                lines.append(np.stack([points[place], end]))
        drawn = [np.rint(line).astype(np.int32)[:, None] for line in lines]
        # Smooth edges, then a core without gaps: the mask must hold every line in one piece.
        cv2.polylines(pixels, drawn, False, ink, thick, cv2.LINE_AA)
        cv2.polylines(pixels, drawn, False, ink, thick, cv2.LINE_8)
    return pixels


@lru_cache(maxsize=8)
def _whole_grid(side: int) -> tuple[Float32[np.ndarray, "{side} {side}"], Float32[np.ndarray, "{side} {side}"]]:
    line = np.arange(side, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def _grid(
    height: int, width: int
) -> tuple[Float32[np.ndarray, "{height} {width}"], Float32[np.ndarray, "{height} {width}"]]:
    """Column and row of every pixel."""
    x, y = _whole_grid(1 << (max(height, width) - 1).bit_length())
    return x[:height, :width], y[:height, :width]
