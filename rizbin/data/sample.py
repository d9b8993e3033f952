"""Samples of every source of data: images with captions and, where known, their objects."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8

from rizbin.core.errors import RizbinError


class Refused(RizbinError):
    """One image or caption that cannot be used. Training skips and counts it; other commands show the sentence."""

    def __str__(self) -> str:
        """The sentence on one line, without the middle where a name in it has thousands of letters."""
        text = super().__str__().replace("\n", "\\n").replace("\r", "\\r")
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 2 :]}"


_LONGEST = 1000
"""Characters of a refusal; one of usual names has two hundred."""


@dataclass(frozen=True)
class LabeledObject:
    """One object whose truth is known."""

    name: str
    """Its category, lower case, singular: "fire engine"."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom in pixels of the image; right and bottom exclusive; around the visible part."""
    mask: Bool[np.ndarray, "height width"]
    """The visible pixels, exact, at the image's size."""

    @property
    def area(self) -> int:
        """Visible pixels."""
        return int(self.mask.sum())


@dataclass(frozen=True)
class Named:
    """One object as a batch carries it, small enough to pass between processes."""

    name: str
    box: tuple[float, float, float, float]
    """Left, top, right, bottom as shares of the image's sides."""


@dataclass(frozen=True)
class Sample:
    """One image with its caption."""

    key: str
    """Names the sample in messages and lists: a file name, or "scenes/train/17"."""
    image: UInt8[np.ndarray, "height width 3"]
    """RGB, 0 to 255."""
    caption: str
    """Empty when the source has none."""
    label: str = ""
    """The one category of the whole image where a source knows it, else empty."""
    objects: tuple[LabeledObject, ...] = ()
    """The objects, back to front; empty when the truth is not known."""
    relations: tuple[tuple[int, str, int], ...] = ()
    """(subject, "left of", object) with positions in `objects`; only relations that hold."""
    captions: tuple[str, ...] = ()
    """All captions where a source has several, `caption` first; training takes one of them at random each time."""
    distractors: tuple[LabeledObject, ...] = ()
    """Distractors: visible objects that are neither in the caption nor among `names`; measurements count their pixels
    as background. Only the embedded world has them, and only where they are requested."""

    @property
    def named(self) -> tuple[Named, ...]:
        """The objects without their masks, in shares of the image."""
        height, width = self.image.shape[:2]
        return tuple(
            Named(
                known.name, (known.box[0] / width, known.box[1] / height, known.box[2] / width, known.box[3] / height)
            )
            for known in self.objects
        )

    @property
    def names(self) -> frozenset[str]:
        """The categories that are right answers for this image."""
        return frozenset(known.name for known in self.objects) or frozenset({self.label} - {""})


@runtime_checkable
class Source(Protocol):
    """Samples by index. Sample i is a pure function of (source, i): no state, no order, no surprise at resume."""

    name: str
    """Short and human: "scenes:easy, train"."""
    fingerprint: str
    """Changes when the samples change, so that a run is not resumed on other data."""
    endless: bool
    """True when every index below 2**62 is a new sample; `len` is then a nominal epoch."""
    categories: tuple[str, ...]
    """All names that `Sample.names` may hold, sorted; empty when unknown."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`. Raises `Refused` when its image or caption cannot be used."""
        ...
