"""Backgrounds without objects: plain, gradient, textured and cluttered, all from the scene's own random numbers."""

import math
from functools import lru_cache, partial
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from rizbin.core.random import generator
from rizbin.data.scenes.textures import GROUNDS, ground, window

DARKEST, BRIGHTEST = 80, 250
"""Range of the background's channels: the drawings' black outlines must stand out."""

NOISE = 5.0
"""Standard deviation of the grain, gray levels of 255."""

_SLACK = 64  # The grain field is larger than the image by this much; a scene takes a window of it.


class _Field(NamedTuple):
    across: Float32[np.ndarray, "side side"]
    down: Float32[np.ndarray, "side side"]
    grain: Float32[np.ndarray, "larger larger 3"]


@lru_cache(maxsize=4)
def _field(side: int) -> _Field:
    """Coordinates from -1 to 1, and one field of grain: drawn anew for each scene it would cost more than the scene."""
    line = ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1).astype(np.float32)
    across, down = np.meshgrid(line, line)
    grain = generator("scenes", "grain").standard_normal((side + _SLACK, side + _SLACK, 3), np.float32) * np.float32(
        NOISE
    )
    return _Field(across, down, grain)


def background(kind: str, side: int, random: np.random.Generator) -> UInt8[np.ndarray, "side side 3"]:
    """An image of `side` pixels of one of the `KINDS`, or `WHITE`, with light grain."""
    field = _field(side)
    image = _PAINTERS[kind](field, side, random)
    top, left = random.integers(0, _SLACK, 2).tolist()
    # One pass: add, round, cut to 0 to 255.
    return np.asarray(cv2.add(image, field.grain[top : top + side, left : left + side], dtype=cv2.CV_8U), np.uint8)


def _color(random: np.random.Generator) -> Float32[np.ndarray, "3"]:
    return random.uniform(DARKEST, BRIGHTEST, 3).astype(np.float32)


def _plain(field: _Field, side: int, random: np.random.Generator) -> Float32[np.ndarray, "side side 3"]:
    return _mix(np.zeros_like(field.across), random)


def _white(field: _Field, side: int, random: np.random.Generator) -> Float32[np.ndarray, "side side 3"]:
    return np.full((side, side, 3), BRIGHTEST - 3 * NOISE, np.float32)


def _gradient(field: _Field, side: int, random: np.random.Generator) -> Float32[np.ndarray, "side side 3"]:
    angle = random.random() * 2 * math.pi
    x, y = math.cos(angle), math.sin(angle)
    step = (field.across * np.float32(x) + field.down * np.float32(y)) / np.float32(2 * (abs(x) + abs(y))) + np.float32(
        0.5
    )
    return _mix(step, random)


def _mix(share: Float32[np.ndarray, "side side"], random: np.random.Generator) -> Float32[np.ndarray, "side side 3"]:
    """Two colors, the second by `share` (0 to 1)."""
    first, second = _color(random), _color(random)
    return np.asarray(cv2.transform(share, np.stack([second - first, first], axis=1)), np.float32)


def _wave(field: _Field, angle: float, periods: float, phase: float) -> Float32[np.ndarray, "side side"]:
    """Position along `angle` in periods."""
    scale = np.float32(periods / 2)
    return (
        field.across * (scale * np.float32(math.cos(angle)))
        + field.down * (scale * np.float32(math.sin(angle)))
        + phase
    )


def _stripes(field: _Field, side: int, random: np.random.Generator) -> Float32[np.ndarray, "side side 3"]:
    angle, periods, phase = random.random() * math.pi, random.uniform(2, 8), random.random()
    return _mix(0.5 + 0.5 * np.sin(_wave(field, angle, periods, phase) * np.float32(2 * math.pi)), random)


def _checks(field: _Field, side: int, random: np.random.Generator) -> Float32[np.ndarray, "side side 3"]:
    angle, periods, phase = random.random() * math.pi, random.uniform(2, 6), random.random()
    across, other = _wave(field, angle, periods, phase), _wave(field, angle + math.pi / 2, periods, phase)
    return _mix(((np.floor(across * 2) + np.floor(other * 2)) % 2).astype(np.float32), random)


def _dots(field: _Field, side: int, random: np.random.Generator) -> Float32[np.ndarray, "side side 3"]:
    angle, periods, phase = random.random() * math.pi, random.uniform(3, 8), random.random()
    radius = np.float32(random.uniform(0.2, 0.4))
    across, other = _wave(field, angle, periods, phase), _wave(field, angle + math.pi / 2, periods, phase)
    across, other = across - np.rint(across), other - np.rint(other)
    return _mix((across * across + other * other < radius * radius).astype(np.float32), random)


def _clouds(field: _Field, side: int, random: np.random.Generator) -> Float32[np.ndarray, "side side 3"]:
    cells = int(random.integers(3, 9))
    # Around one color: free colors everywhere would be louder than any drawing.
    coarse = _color(random) + random.uniform(-60, 60, (cells, cells, 3)).astype(np.float32)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def _clutter(field: _Field, side: int, random: np.random.Generator) -> Float32[np.ndarray, "side side 3"]:
    """8 to 24 rectangles, ellipses, triangles and lines on a plain ground; none of them is a drawing of anything."""
    image = np.empty((side, side, 3), np.uint8)
    image[:] = _color(random)
    count = int(random.integers(8, 25))
    colors = random.uniform(DARKEST, BRIGHTEST, (count, 3)).tolist()
    numbers = random.random((count, 7))
    points = (numbers[:, :2] * side).astype(np.int32).tolist()
    reach = (side * (0.04 + 0.14 * numbers[:, 2:4])).astype(np.int32).tolist()
    for (x, y), (wide, high), color, (turn, kind, more) in zip(
        points, reach, colors, numbers[:, 4:].tolist(), strict=True
    ):
        if kind < 0.3:
            cv2.rectangle(image, (x - wide, y - high), (x + wide, y + high), color, -1)
        elif kind < 0.6:
            cv2.ellipse(image, (x, y), (wide, high), turn * 180, 0, 360, color, -1)
        elif kind < 0.8:
            corners = [
                [x - wide, y + high],
                [x + wide, y + round(high * more)],
                [x + round(wide * (turn - 0.5)), y - high],
            ]
            cv2.fillConvexPoly(image, np.array(corners, np.int32), color)
        else:
            end = (x + round(2 * wide * (2 * turn - 1)), y + round(2 * high * (2 * more - 1)))
            cv2.line(image, (x, y), end, color, max(1, side // 48))
    return image.astype(np.float32)


_PAINTERS = {
    "plain": _plain,
    "gradient": _gradient,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "clouds": _clouds,
    "clutter": _clutter,
}

KINDS: tuple[str, ...] = tuple(_PAINTERS)
"""Plain; gradient; textures (stripes, checks, dots, clouds); clutter. Of colors of their own in every scene."""

WHITE = "white"
"""The same bright ground in every scene, by which no scene can be told from another."""
_PAINTERS[WHITE] = _white


_NATURAL = {
    "grass": (95, 150, 70),
    "bark": (150, 115, 85),
    "gravel": (165, 160, 150),
    "water": (95, 150, 190),
    "fabric": (190, 150, 140),
}
"""RGB that such a ground has in nature, in about half of the scenes."""


def _textured(kind: str, field: _Field, side: int, random: np.random.Generator) -> Float32[np.ndarray, "side side 3"]:
    """One of the `GROUNDS`, mirrored or not, in its natural color or in any, under uneven light."""
    free, natural = _color(random), random.random() < 0.5
    base = np.asarray(_NATURAL[kind], np.float32) + 0.2 * (free - 165) if natural else free
    contrast = random.uniform(0.12, 0.32)
    share = window(ground(kind, side), side, side, random.random(), random.random())
    if random.random() < 0.5:
        share = share[:, ::-1]
    dark, bright = base * np.float32(1 - contrast), base * np.float32(1 + contrast)
    image = cv2.transform(np.ascontiguousarray(share), np.stack([bright - dark, dark], axis=1).astype(np.float32))
    light = cv2.resize(random.uniform(-18, 18, (3, 3)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return cv2.add(image, cv2.merge([light, light, light]))


_PAINTERS |= {kind: partial(_textured, kind) for kind in GROUNDS}
