"""Puts drawings on a background, so that enough of each stays visible, and knows which pixel belongs to which."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Int8, UInt8

from rizbin.data.scenes.backgrounds import background
from rizbin.data.scenes.detail import Detail, apply_finish, choose_finish
from rizbin.data.scenes.sprites import VISIBLE, Sprite

MOST_HIDDEN = 0.4
"""At most this share of any object lies behind others."""

FEWEST_PIXELS = 8.0
"""Least longer side of an object, pixels, whatever the preset says: one patch of the small networks, and below
it no drawing can be told from another."""

FEWEST_SEEN = 5
"""Fewest pixels an object must show; thin drawings made tiny can fall below it, and are then made larger."""

FEWEST_COVERED = 0.05
"""An object is "in front of" another when it hides this share of it or more."""

_PLACES = 8  # Places tried for one size of an object.
_SIZES = 5  # Sizes tried before an object is left out.
_BEGINNINGS = 50  # Images begun before drawings that must be there are given up.


@dataclass(frozen=True, kw_only=True)
class World:
    """What a preset's scenes may hold."""

    objects: tuple[int, int]
    """Fewest and most objects."""
    sides: tuple[float, float]
    """Shortest and longest longer side of an object, share of the image's side."""
    spread: Literal["even", "log"]
    """How sizes are drawn between the two: evenly, or evenly in their logarithm (more small ones)."""
    turn: float
    """Largest rotation either way, degrees."""
    repeat: float
    """Chance that an object is of a category that the scene already holds."""
    plain: float
    """Share of captions that only name what is there."""
    backgrounds: tuple[str, ...]
    """Kinds of background, equally likely; see `backgrounds.KINDS`. A kind may stand here more than once."""
    tint: float = 0.0
    """Largest turn of all hues of a scene either way, share of the circle: 0.5 makes every color as likely."""
    detail: Detail | None = field(default=None, repr=False)
    """Textures and thin lines of objects, and sizes of distractors; None leaves the drawings flat. Not in the repr, of
    which the fingerprints of presets without it are made: they must stay, so that runs begun before it go on."""


@dataclass(slots=True)
class Placed:
    """One object in an image, in front of those placed before it."""

    category: int
    """Position in the source's names; of a distractor -1 minus its position among the source's distractors."""
    left: int
    top: int
    mask: Bool[np.ndarray, "height width"]
    """Its own pixels, hidden ones too, in the rectangle whose corner is (left, top)."""
    full: int
    """How many those are."""
    visible: int
    """How many of them no object in front hides."""
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Around its visible pixels: left, top, right, bottom, the last two exclusive."""
    hidden_by: tuple[int, ...] = ()
    """Objects (positions in the image) that hide `FEWEST_COVERED` of it or more."""


@dataclass(slots=True)
class ComposedScene:
    """A composed scene."""

    image: UInt8[np.ndarray, "side side 3"]
    owner: Int8[np.ndarray, "side side"]
    """Which object a pixel shows, -1 for the background."""
    placed: list[Placed]
    """Back to front."""


def compose(
    world: World,
    side: int,
    drawings: list[tuple[int, Sprite]],
    needed: int,
    random: np.random.Generator,
    distractors: Sequence[tuple[int, Sprite]] = (),
    apart: np.random.Generator | None = None,
) -> ComposedScene | None:
    """An image of `side` pixels with `drawings` (category and sprite), back to front.

    A drawing that finds no room, however small, is left out, but for the first `needed` (1 or more): without these the
    image is begun again, and None comes back when that does not help (drawings too thin to show a pixel).

    `distractors` (negative category and sprite) lie behind all objects or in front of them, at even chance. They use
    the random numbers of `apart` and make no object yield, so that a scene with them is the scene without them, but for
    what they cover.
    """
    for _ in range(_BEGINNINGS):
        kind = world.backgrounds[int(random.random() * len(world.backgrounds))]
        scene = ComposedScene(background(kind, side, random), np.full((side, side), -1, np.int8), [])
        in_front = []
        for category, sprite in distractors:
            assert apart is not None
            if apart.random() < 0.5:
                in_front.append((category, sprite))
            else:
                _place(scene, world, category, sprite, apart)
        for position, (category, sprite) in enumerate(drawings):
            if not _place(scene, world, category, sprite, random) and position < needed:
                break
        else:
            for category, sprite in in_front:
                assert apart is not None
                _place(scene, world, category, sprite, apart)
            _measure(scene)
            return scene
    return None


def _place(scene: ComposedScene, world: World, category: int, sprite: Sprite, random: np.random.Generator) -> bool:
    side = len(scene.image)
    smallest, largest = (max(FEWEST_PIXELS, share * side) for share in world.sides)
    finish = None
    if world.detail:
        smallest, largest = _limits(world.detail, side, category, sprite, smallest, largest, random)
        finish = choose_finish(world.detail, sprite.outlined, random)
    share = random.random()
    length = (
        smallest * (largest / smallest) ** share if world.spread == "log" else smallest + (largest - smallest) * share
    )
    turn = (2 * random.random() - 1) * world.turn
    for _ in range(_SIZES):
        pixels = _shape(sprite, length, turn)
        if finish:
            pixels = apply_finish(pixels, finish, side)
        mask = pixels[..., 3] >= VISIBLE
        full = int(np.count_nonzero(mask))
        if full < FEWEST_SEEN:
            length = min(length * 1.5, largest)
            continue
        height, width = mask.shape
        for _ in range(_PLACES):
            left, top = int(random.random() * (side - width + 1)), int(random.random() * (side - height + 1))
            if _take_room(scene, left, top, mask):
                _paint(scene.image[top : top + height, left : left + width], pixels)
                scene.placed.append(Placed(category, left, top, mask, full, full))
                return True
        length = max(smallest, length * 0.7)
    return False


def _limits(
    detail: Detail,
    side: int,
    category: int,
    sprite: Sprite,
    smallest: float,
    largest: float,
    random: np.random.Generator,
) -> tuple[float, float]:
    """Shortest and longest longer side of this object: a few are tiny, line drawings are not, distractors not large."""
    tiny = random.random() < detail.tiny
    if category < 0:
        largest = max(smallest, detail.largest_distractor * side)
    if sprite.outlined:
        return max(smallest, detail.shortest_outlined * side), max(largest, detail.shortest_outlined * side)
    return (max(FEWEST_PIXELS, detail.tiniest * side), smallest) if tiny else (smallest, largest)


def _take_room(scene: ComposedScene, left: int, top: int, mask: Bool[np.ndarray, "height width"]) -> bool:
    """Give these pixels to the next object, if every object behind keeps enough of itself in sight.

    Distractors behind need not.
    """
    right, bottom = left + mask.shape[1], top + mask.shape[0]
    owners = scene.owner[top:bottom, left:right]
    if any(
        left < other.left + other.mask.shape[1]
        and other.left < right
        and top < other.top + other.mask.shape[0]
        and other.top < bottom
        for other in scene.placed
    ):
        lost = np.bincount(owners[mask] + 1, minlength=len(scene.placed) + 1)[1:].tolist()
        for other, pixels in zip(scene.placed, lost, strict=True):
            if (
                pixels
                and other.category >= 0
                and other.visible - pixels < max(FEWEST_SEEN, (1 - MOST_HIDDEN) * other.full)
            ):
                return False
        for other, pixels in zip(scene.placed, lost, strict=True):
            other.visible -= pixels
    owners[mask] = len(scene.placed)
    return True


def _paint(region: UInt8[np.ndarray, "height width 3"], pixels: UInt8[np.ndarray, "height width 4"]) -> None:
    """Lay `pixels` (colors multiplied by alpha) over `region`, in place."""
    # (x * 257 + 257) >> 16 is x / 255 to the nearest for x + 127 below 65,536, and much cheaper than dividing.
    behind = region * (255 - pixels[..., 3:]).astype(np.uint32) + np.uint32(127)
    behind *= np.uint32(257)
    behind += np.uint32(257)
    behind >>= np.uint32(16)
    cv2.add(behind.astype(np.uint8), np.ascontiguousarray(pixels[..., :3]), dst=region)


def _shape(sprite: Sprite, length: float, turn: float) -> UInt8[np.ndarray, "height width 4"]:
    """The drawing turned by `turn` degrees, its longer side then `length` pixels."""
    source = sprite.at_least(length)
    high, wide = source.shape[:2]
    if not turn:
        scale = length / max(high, wide)
        return cv2.resize(
            source, (max(1, round(wide * scale)), max(1, round(high * scale))), interpolation=cv2.INTER_AREA
        )
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    across, down = wide * cosine + high * abs(sine), wide * abs(sine) + high * cosine
    scale = length / max(across, down)
    width, height = max(1, round(across * scale)), max(1, round(down * scale))
    a, b = scale * cosine, scale * sine
    # Pixel centers lie at whole numbers, so the middle of n pixels is (n - 1) / 2.
    middle_x, middle_y = (wide - 1) / 2, (high - 1) / 2
    matrix = np.array(
        [
            [a, b, (width - 1) / 2 - a * middle_x - b * middle_y],
            [-b, a, (height - 1) / 2 + b * middle_x - a * middle_y],
        ]
    )
    return cv2.warpAffine(source, matrix, (width, height), flags=cv2.INTER_LINEAR)


def _measure(scene: ComposedScene) -> None:
    """Fill in what is known only once the last object lies in place."""
    count = len(scene.placed)
    for position, placed in enumerate(scene.placed):
        height, width = placed.mask.shape
        owners = scene.owner[placed.top : placed.top + height, placed.left : placed.left + width]
        if not placed.visible:  # a distractor behind everything
            continue
        mine = owners == position
        columns, rows = np.flatnonzero(mine.any(0)), np.flatnonzero(mine.any(1))
        placed.box = (
            placed.left + int(columns[0]),
            placed.top + int(rows[0]),
            placed.left + int(columns[-1]) + 1,
            placed.top + int(rows[-1]) + 1,
        )
        if placed.visible < placed.full:
            over = np.bincount(owners[placed.mask], minlength=count)
            least = FEWEST_COVERED * placed.full
            placed.hidden_by = tuple(k for k in range(position + 1, count) if over[k] >= least)
