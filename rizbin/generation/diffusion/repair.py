"""Draws until every object of the prompt is there: draws, verifies, and repairs only what is missing.

The stages of repair are tried only while an object is missing: another seed; attention guidance from the same noise;
and the missing object alone, drawn at the model's own size and set into a free place of the best image. The image with
most verified objects is kept, so no stage makes the result worse. Best-of-N, the baseline, is the stage reseed alone.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import cv2
import numpy as np

from rizbin.core.errors import RizbinError
from rizbin.core.progress import Advance, MakeBar, advancing
from rizbin.data.scenes.captions import article
from rizbin.generation.diffusion.attention_guidance import SCALE, GuidanceKind, steering
from rizbin.generation.diffusion.sampling import (
    GeneratedImage,
    Sampling,
    Watch,
    fingerprint,
    seed_after,
)
from rizbin.generation.diffusion.spans import objects_in
from rizbin.generation.diffusion.text_to_image import TextToImage
from rizbin.generation.film import Pixels

Stage = Literal["reseed", "attention", "place"]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


ALONE: GuidanceKind = "attend-and-excite"
"""The attention guidance where the prompt names only one object."""


@dataclass(frozen=True)
class ObjectPresence:
    """What a verifier says about one object."""

    probability: float
    """Probability that it is in the image, 0 to 1."""
    box: Box | None = None
    """Its bounding box, where the verifier gives one."""
    known: bool = True
    """Whether the verifier knows what the object is; what it does not know cannot be verified."""


@runtime_checkable
class Verifier(Protocol):
    """Verifies which objects an image shows. A detector can; the caller passes it in."""

    def __call__(self, image: Pixels, phrases: Sequence[str]) -> Sequence[ObjectPresence]:
        """One presence for each phrase."""
        ...


@dataclass(frozen=True, kw_only=True)
class RepairStrategy:
    """The stages of repair and their order."""

    stages: tuple[Stage, ...] = ("attention", "place", "reseed")
    """Stages, each tried as often as the fields below say, until all objects are verified. In this order the first
    noise is used before another image is begun."""
    guidance: GuidanceKind = "center-distance"
    """Attention guidance of the stage attention, where two objects or more are named; one alone gets attend-and-excite.
    In trials on 60 pairs it was the one that repaired more than it broke (docs/LOG.md)."""
    scale: float = SCALE
    """Guidance scale of the updates of the stage attention."""
    seeds: int = 4
    """Most other seeds that the stage reseed tries."""
    places: int = 4
    """Most images in which the stage place draws a missing object into a free place, one object each, for every object
    of the prompt beyond the first: of three two may be missing."""
    threshold: float = 0.5
    """Probability from which an object counts as there."""
    share: float = 0.9
    """Share of the steps by which a place's ground becomes the object: at 0.75 fewer of them grow from a plain ground,
    at 1 the ground is forgotten."""


@dataclass(frozen=True)
class Attempt:
    """One image that was drawn and verified."""

    how: Literal["draw", "reseed", "attention", "place"]
    seed: int
    image: Pixels
    presences: dict[str, ObjectPresence]
    seconds: float
    """Time to draw the image and to verify it."""
    painted: GeneratedImage
    """How it came to be."""
    sampling: Sampling
    guidance: GuidanceKind = "none"
    """The attention guidance that was used."""

    @property
    def known(self) -> dict[str, ObjectPresence]:
        """What was found of the objects that the verifier knows."""
        return {name: presence for name, presence in self.presences.items() if presence.known}

    def there(self, threshold: float) -> int:
        """Number of objects whose probability is at least `threshold`."""
        return sum(presence.probability >= threshold for presence in self.known.values())

    def sure(self) -> float:
        """Least probability of any object: which of two equally complete images is the better one."""
        return min((presence.probability for presence in self.known.values()), default=1.0)


@dataclass(frozen=True)
class Repaired:
    """The best image and all attempts."""

    best: Attempt
    attempts: list[Attempt]
    objects: tuple[str, ...]
    whole: bool
    """Whether every object was verified."""
    notes: list[str] = field(default_factory=list)
    file: Path | None = None
    """File of the best image; None where it was not written."""

    def record(self, threshold: float) -> list[dict[str, object]]:
        """What was tried and what it cost, for a file."""
        return [
            {
                "how": attempt.how,
                "seed": attempt.seed,
                "guidance": attempt.guidance,
                "seconds": round(attempt.seconds, 2),
                "there": attempt.there(threshold),
                "probabilities": {name: round(value.probability, 3) for name, value in attempt.presences.items()},
                "unknown_to_the_judge": [name for name, value in attempt.presences.items() if not value.known],
                "kept": attempt is self.best,
                "pixels": fingerprint(attempt.image),
            }
            for attempt in self.attempts
        ]


def repair(
    text_to_image: TextToImage,
    prompt: str,
    verifier: Verifier,
    *,
    sampling: Sampling | None = None,
    strategy: RepairStrategy | None = None,
    objects: Sequence[str] = (),
    attend: int = 0,
    bar: MakeBar | None = None,
    watch: Watch | None = None,
) -> Repaired:
    """An image of the prompt with all its objects, as far as the stages of the strategy reach.

    objects: the objects to verify; empty: those that `spans.objects_in` finds in the prompt. A prompt without any is
    drawn once and counts as whole, with a note. An object that the verifier does not know is reported and not verified:
    the image is then never whole, and no stage is tried for it alone. attend: as for `TextToImage.paint`.
    """
    sampling, strategy = sampling or Sampling(), strategy or RepairStrategy()
    objects = tuple(objects) or tuple(objects_in(prompt))
    notes = [] if objects else ["No object was found in the prompt; it was drawn once and not verified."]
    tries = {"reseed": strategy.seeds, "attention": 1, "place": strategy.places * max(len(objects) - 1, 1)}
    total = 1 + sum(tries[stage] for stage in strategy.stages)
    with advancing(bar, total, "drawing and verifying") as advance:
        repairs = _Repairs(text_to_image, prompt, verifier, objects, sampling, strategy, attend, advance, notes, watch)
        whole = repairs.draw()
        for stage in strategy.stages:
            for number in range(tries[stage]):
                if not whole:
                    whole = repairs.make(stage, number)
    best = repairs.best()
    return Repaired(best, repairs.attempts, objects, best.there(strategy.threshold) == len(objects), notes)


@dataclass
class _Repairs:
    """The attempts at one prompt, each drawn and verified."""

    text_to_image: TextToImage
    prompt: str
    verifier: Verifier
    objects: tuple[str, ...]
    sampling: Sampling
    strategy: RepairStrategy
    attend: int
    advance: Advance
    notes: list[str]
    watch: Watch | None = None
    """Called after each step of each image."""
    attempts: list[Attempt] = field(default_factory=list)

    def best(self) -> Attempt:
        """The attempt with most objects; among equals the one with the higher least probability, then the first."""
        threshold = self.strategy.threshold
        return max(self.attempts, key=lambda attempt: (attempt.there(threshold), attempt.sure()))

    def draw(self) -> bool:
        """Draws the prompt as it is; returns whether all that the verifier knows is there, as the others do."""
        return self._verify(
            "draw", self.text_to_image.paint(self.prompt, self.sampling, watch=self.watch, attend=self.attend)
        )

    def make(self, stage: Stage, number: int) -> bool:
        """Makes try number `number`, from 0, of a stage; returns as `draw`."""
        if stage == "reseed":
            return self._reseed(number)
        if stage == "attention":
            return self._guide()
        return self._verify("place", self._place(number))

    def _reseed(self, number: int) -> bool:
        other = replace(self.sampling, seed=seed_after(self.sampling.seed, 1 + number))
        return self._verify(
            "reseed", self.text_to_image.paint(self.prompt, other, watch=self.watch, attend=self.attend), sampling=other
        )

    def _guide(self) -> bool:
        """Attention guidance from the same noise; nothing is drawn where it has nothing to guide."""
        guidance, scale = self.strategy.guidance, self.strategy.scale
        if len(self.objects) == 1 and guidance != ALONE:
            self.notes.append(
                f"One object has no other to be separated from, so {ALONE} guides in place of {guidance}."
            )
            guidance, scale = ALONE, SCALE
        guide, sentences = steering(self.text_to_image, self.prompt, guidance, objects=self.objects, scale=scale)
        self.notes.extend(sentences)
        if guide is None:
            return False
        painted = self.text_to_image.paint(
            self.prompt, self.sampling, guide=guide, watch=self.watch, attend=self.attend
        )
        return self._verify("attention", painted, guidance=guidance)

    def _place(self, number: int) -> GeneratedImage:
        """The least probable object of the best image, drawn alone and set into the largest free place.

        It is drawn on the place's ground at the size that the model was trained on, since in a corner of the whole
        image models draw a corner of an object; what the verifier finds there is cut out, so that it fills the place.
        """
        best = self.best()
        name = min(best.known, key=lambda name: best.presences[name].probability)
        threshold = self.strategy.threshold
        taken = [
            presence.box
            for presence in best.presences.values()
            if presence.box is not None and presence.probability >= threshold
        ]
        left, top, right, bottom = (round(value) for value in free_place(taken, *best.image.shape[:2]))
        model = self.text_to_image
        side = max(model.side, min(bottom - top, right - left) // model.divisor * model.divisor)
        ground = cv2.resize(best.image[top:bottom, left:right], (side, side), interpolation=cv2.INTER_CUBIC)
        seed = seed_after(self.sampling.seed, number)
        drawn = model.paint(
            article(name),
            replace(self.sampling, strength=self.strategy.share, seed=seed, height=side, width=side),
            start=np.asarray(ground, np.uint8),
            watch=self.watch,
        )
        (presence,) = self.verifier(drawn.image, (name,))
        alone = drawn.image
        if presence.box is not None and presence.probability >= threshold:
            alone = cut_out(alone, presence.box)
        return replace(drawn, image=set_in(best.image, (left, top, right, bottom), alone))

    def _verify(
        self,
        how: Literal["draw", "reseed", "attention", "place"],
        painted: GeneratedImage,
        *,
        sampling: Sampling | None = None,
        guidance: GuidanceKind = "none",
    ) -> bool:
        """Asks the verifier for every object and adds the attempt."""
        begin = time.perf_counter()
        presences = self.verifier(painted.image, self.objects) if self.objects else []
        presences_by_name = dict(zip(self.objects, presences, strict=True))
        seconds = painted.seconds + time.perf_counter() - begin
        sampling = sampling or self.sampling
        attempt = Attempt(how, sampling.seed, painted.image, presences_by_name, seconds, painted, sampling, guidance)
        self.attempts.append(attempt)
        unknown = [
            f'The judge does not know "{name}", so whether it is there cannot be verified.'
            for name, presence in presences_by_name.items()
            if not presence.known
        ]
        self.notes.extend(note for note in [*unknown, *painted.notes] if note not in self.notes)
        self.advance(1)
        return attempt.there(self.strategy.threshold) == len(attempt.known)


def set_in(image: Pixels, box: tuple[int, int, int, int], drawn: Pixels) -> Pixels:
    """The image with what was drawn in the square of pixels `box`; all outside of it stays pixel for pixel.

    The drawn colors move by the difference along the border (its median, which other objects there do not sway), and
    the border fades over a twelfth of the side, so that no frame is seen.
    """
    left, top, right, bottom = box
    before = image[top:bottom, left:right].astype(np.float32)
    height, width = before.shape[:2]
    inside = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    rows, columns = (np.minimum(np.arange(size), np.arange(size)[::-1]) for size in (height, width))
    depth = np.minimum(rows[:, None], columns)
    fade = max(round(min(height, width) / 12), 1)
    inside += np.median((before - inside)[depth < fade], axis=0)
    share = np.clip((depth + 1) / (fade + 1), 0, 1)[..., None]
    mixed = image.copy()
    mixed[top:bottom, left:right] = (share * inside + (1 - share) * before).clip(0, 255).round().astype(np.uint8)
    return mixed


def cut_out(image: Pixels, box: Box) -> Pixels:
    """The square around a box, a third wider than its longer side, moved into the image where it would leave it."""
    left, top, right, bottom = box
    height, width = image.shape[:2]
    side = int(min(height, width, max(1.3 * max(right - left, bottom - top), 1)))
    row, column = (
        round(min(max((low + high - side) / 2, 0), size - side))
        for low, high, size in ((top, bottom, height), (left, right, width))
    )
    return image[row : row + side, column : column + side]


def free_place(taken: Sequence[Box], height: int, width: int, *, least: float = 0.4) -> Box:
    """The square of at least `least` of the shorter side that covers least of the boxes; larger of equals.

    In pixels. Tried on a grid of sixteenths.
    """
    shorter = min(height, width)
    best: tuple[float, float, Box] | None = None
    for share in np.arange(least, 0.76, 1 / 16):
        side = float(share * shorter)
        for top in np.linspace(0, height - side, 9):
            for left in np.linspace(0, width - side, 9):
                box = (float(left), float(top), float(left) + side, float(top) + side)
                covered = sum(_shared(box, other) for other in taken)
                if best is None or (covered, -side) < best[:2]:
                    best = (covered, -side, box)
    if best is None:
        raise RizbinError(f"An image of {width}x{height} pixels has no place; give a larger one.")
    return best[2]


def _shared(first: Box, second: Box) -> float:
    """Area that two boxes share, pixels."""
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    return max(wide, 0.0) * max(high, 0.0)
