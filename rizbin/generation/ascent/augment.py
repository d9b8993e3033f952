"""Augmented copies of the images, so that what is drawn raises the score of every copy and not of one view alone.

All draws of a copy follow from (seed, step, copy): nothing changes when copies are computed in other chunks or beside
other images. All images of a batch get the same draws. Everything is differentiable.

Source: shifts, noise and clipping, Direct Ascent Synthesis (arXiv 2502.07753); shifts of color, its re-implementations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.core.random import torch_generator
from rizbin.models.encoder import fitted

Images = Float[Tensor, "images 3 height width"]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How a copy differs from the image."""

    shift: float = 0.0625
    """Images are rolled by up to this share of the encoder's side in both directions, over their edges, before the
    middle is cut out. Source: 56 of 224 pixels, a quarter."""
    noise: float = 0.3
    """Uniform noise of up to so much is added or taken away: what shows through it is large. An encoder that never saw
    any is blinded by 0.1 (docs/LOG.md); give it 0. Differs: the source speaks of uniform noise times 0.2; here it is
    centered, so that it does not brighten."""
    color: float = 0.0
    """Each color of a copy is moved by up to so much: no single shade can carry the meaning."""
    flip: float = 0.0
    """Probability that a copy is mirrored. Words like "left of" do not hold in a mirror."""
    crop: float = 1.0
    """Least side of a random square cut from the image, as a share of its side; 1 cuts none. It is enlarged to the
    encoder's side."""
    clip: bool = True
    """Keep copies within black and white."""

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise RizbinError(f"A crop of {self.crop:g} of the side is none; give more than 0 and up to 1.")
        for name in ("shift", "noise", "color", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise RizbinError(f"{name} is {getattr(self, name):g}; give a share from 0 to 1.")


@dataclass(frozen=True)
class Draw:
    """What was drawn for one copy; `apply` makes the copy of any images of the canvas."""

    settings: Augment
    side: int
    """Side of the encoder's input, in pixels."""
    down: int
    across: int
    """Pixels rolled."""
    box: tuple[int, int, int, int]
    """Top, left, height and width of what is cut out after rolling."""
    mirrored: bool
    color: Float[Tensor, "3 1 1"]
    noise: Float[Tensor, "3 side side"]

    def placed(self, images: Images) -> Float[Tensor, "images 3 side side"]:
        """Rolled, cut, mirrored and resized alone: for images that shall lie as the copies do."""
        top, left, height, width = self.box
        if self.down or self.across:
            images = torch.roll(images, (self.down, self.across), dims=(2, 3))
        images = images[:, :, top : top + height, left : left + width]
        if self.mirrored:
            images = images.flip(3)
        return fitted(images, self.side)

    def apply(self, images: Images) -> Float[Tensor, "images 3 side side"]:
        """The copy."""
        copy = self.placed(images)
        if self.settings.color:
            copy = copy + self.color.to(copy)
        if self.settings.noise:
            copy = copy + self.noise.to(copy)
        return copy.clamp(0, 1) if self.settings.clip else copy


def draw(settings: Augment, shape: Sequence[int], side: int, *words: int) -> Draw:
    """What a copy of images of this shape (height, width) is made with; words: seed, step, copy and the like.

    The middle that is cut out is the canvas without the shift at each edge: a canvas of 336 with a shift of 56 gives
    the 224 of the paper. On a canvas no larger than the encoder's side nothing is cut off.
    """
    height, width = (int(length) for length in shape)
    random = torch_generator("ascent", *words)
    numbers = torch.rand(8, generator=random).tolist()
    # A float64 image gets the same noise as a float32 one.
    color = (torch.rand(3, 1, 1, generator=random) * 2 - 1) * settings.color
    noise = (torch.rand(3, side, side, generator=random) * 2 - 1) * settings.noise
    most = round(settings.shift * side)
    down, across = (int(number * (2 * most + 1)) - most for number in numbers[:2])
    rows, columns = height, width
    if settings.crop < 1:
        square = max(round(min(height, width) * (settings.crop + numbers[2] * (1 - settings.crop))), 1)
        rows = columns = square
        top, left = (
            int(number * (full - square + 1)) for number, full in zip(numbers[3:5], (height, width), strict=True)
        )
    else:
        rows, columns = (max(full - 2 * most, min(full, side)) for full in (height, width))
        top, left = (height - rows) // 2, (width - columns) // 2
    return Draw(settings, side, down, across, (top, left, rows, columns), numbers[5] < settings.flip, color, noise)
