"""Settings of gradient ascent on an encoder, and presets by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rizbin.core.errors import RizbinError
from rizbin.generation.ascent.augment import Augment
from rizbin.generation.ascent.parametrize import Parametrization, Resolutions


@dataclass(frozen=True, kw_only=True)
class AscentSettings:
    """Settings of gradient ascent. Values without a source were found by trial with bundled encoders (docs/LOG.md)."""

    parametrization: Parametrization = "resolutions"
    """Parametrization of the image: several resolutions, Fourier waves, pixels, an autoencoder's latent, or strokes."""
    resolutions: Resolutions = "powers"
    """Sides of the components: powers of two up to the canvas, all from 1 up, or a list."""
    decay: float = -0.5
    """A component of side r counts (r / finest) ** -decay: below 0 the coarse ones count less, as Adam moves them for
    all their pixels at once; 0 leaves it to the optimizer (the paper, plain descent)."""
    apart: bool = True
    """Whether a component holds only what coarser ones cannot show, in colors as they vary in photographs; the paper
    adds its components as they are."""
    strokes: int = 48
    """Number of strokes, where the image is made of strokes."""
    size: int = 0
    """Side of the canvas in pixels; 0: the largest encoder's input, with `room` a shift more at each edge, or of a
    start image its own sides."""
    room: bool = False
    """Whether the canvas reaches beyond what is seen at once by the shift at each edge, as in the paper: one more pixel
    is drawn for each that a shift may bring in, and no single copy shows all of the image."""
    steps: int = 60
    """Number of updates of the image."""
    copies: int = 4
    """Number of augmented copies that are encoded in a step."""
    augment: Augment = Augment()
    """Augmentations of the copies."""
    optimizer: Literal["sgd", "adam", "sign"] = "adam"
    """Plain descent (the paper), Adam, or steps of one length by the gradient's sign alone."""
    learning_rate: float = 0.1
    """Learning rate; plain descent on cosines takes 0.2 for each image, Adam a tenth of tanh's range."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Schedule of the learning rate: constant, or falling to 0 by a half cosine."""
    smooth: float = 6.0
    """How much the `variation` of what was added to the start counts against the score: what an encoder is fooled by is
    mostly grain. The paper has none of it. Source: total variation, Mahendran and Vedaldi (arXiv 1412.0035)."""
    change: float = 1.0
    """Largest change of a pixel from the start image, 0 to 1."""
    chunk: int = 4
    """Copies in memory at a time: changes memory and speed, not the image. With 4, a ViT-B/32 and a canvas of 336
    stay within 3 GB (docs/ascend.md)."""
    seed: int = 0
    """Seed of all random draws."""

    def __post_init__(self) -> None:
        for name in ("steps", "copies", "chunk", "strokes"):
            if getattr(self, name) < 1:
                raise RizbinError(f"{name} is {getattr(self, name)}; give 1 or more.")
        if not 0 <= self.smooth < float("inf"):
            raise RizbinError(f"A smoothness of {self.smooth:g} is out of range; give a number, 0 or more.")
        if not 0 < self.change <= 1:
            raise RizbinError(f"A change of {self.change:g} is none; give more than 0 and up to 1.")
        if self.size and self.size < 8:
            raise RizbinError(f"A canvas of {self.size} pixels shows nothing; give 8 or more.")
        if not self.learning_rate > 0:
            raise RizbinError(f"A learning rate of {self.learning_rate:g} moves nothing; give more than 0.")


def paper() -> AscentSettings:
    """The settings of Direct Ascent Synthesis (arXiv 2502.07753): all resolutions, 32 copies, plain descent."""
    return AscentSettings(
        resolutions="all",
        decay=0.0,
        apart=False,
        room=True,
        augment=Augment(shift=0.25, noise=0.2, crop=1.0),
        steps=100,
        copies=32,
        optimizer="sgd",
        learning_rate=0.2,
        schedule="constant",
        smooth=0.0,
    )


def default() -> AscentSettings:
    """A fast preset for CPUs: components of powers of two and a penalty on total variation."""
    return AscentSettings()


def adversarial() -> AscentSettings:
    """Plain pixels without copies: what fools an encoder, to compare with.

    For long, until the score hardly rises: an encoder that is hard to mislead lets the first steps draw something.
    """
    return AscentSettings(
        parametrization="pixels",
        steps=600,
        copies=1,
        augment=Augment(shift=0.0, noise=0.0),
        schedule="constant",
        learning_rate=0.05,
        smooth=0.0,
    )


PRESETS: dict[str, Callable[[], AscentSettings]] = {"default": default, "paper": paper, "adversarial": adversarial}
